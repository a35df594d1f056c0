"""Remembered results on the meta device: new memory each time, and views stay views."""

import torch
from torch import Tensor

from rankwise.measure.meta_results import MetaResults

ATEN = torch.ops.aten


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def test_a_remembered_result_is_new_memory_of_the_same_layout() -> None:
    results = MetaResults()
    x = torch.empty(3, 5, device="meta").t()
    first, second = (results.of(ATEN.clone.default, (x,), {}) for _ in range(2))
    assert first.shape == second.shape == (5, 3)
    assert first.stride() == second.stride() == x.stride()
    assert len({address(first), address(second), address(x)}) == 3


def test_views_and_changed_arguments_are_never_replaced() -> None:
    """The schema of _unsafe_view calls its result no view."""
    results, x = MetaResults(), torch.empty(4, 6, device="meta")
    for func, args in (
        (ATEN.view.default, (x, [24])),
        (ATEN._unsafe_view.default, (x, [24])),
        (ATEN.add_.Tensor, (x, x)),
    ):
        for _ in range(3):
            assert address(results.of(func, args, {})) == address(x)


def test_numbers_that_are_equal_are_told_apart() -> None:
    results, x = MetaResults(), torch.empty(2, dtype=torch.int64, device="meta")
    dtypes = [results.of(ATEN.add.Scalar, (x, one), {}).dtype for one in (1, 1.0, 1, 1.0)]
    assert dtypes == [torch.int64, torch.float32] * 2


def test_tensors_with_values_are_computed() -> None:
    results, x = MetaResults(), torch.ones(2)
    doubled = [results.of(ATEN.mul.Tensor, (x * factor, x), {}).tolist() for factor in (2, 3)]
    assert doubled == [[2.0, 2.0], [3.0, 3.0]]


def test_several_results_come_as_they_did() -> None:
    results, x = MetaResults(), torch.empty(2, 8, device="meta")
    for _ in range(2):
        values, indices = results.of(ATEN.topk.default, (x, 3), {})
        assert (values.shape, values.dtype) == ((2, 3), torch.float32)
        assert (indices.shape, indices.dtype) == ((2, 3), torch.int64)
