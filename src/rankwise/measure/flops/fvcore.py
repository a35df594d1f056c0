"""FLOPs of a forward pass by a second counter, fvcore, which reads them off a traced graph and not off what is dispatched.

fvcore counts a multiply-add as one, so its counts are doubled, and only those of matrix products are taken, for it also counts
normalisations. Its count of an einsum is read off a text that numpy prints with four digits; ours, exact, stands in for it: the
product of all index sizes, which is right for two factors.
"""

from collections.abc import Iterator
from math import prod

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

PRODUCTS = ("linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "einsum", "conv")


def forward(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """FLOPs of the matrix products of one call.

    Raises:
        RuntimeError: torch cannot trace the model.
    """
    analysis = FlopCountAnalysis(_Positional(model, tuple(batch)), tuple(batch.values()))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings(
        "none"
    )
    found = analysis.set_op_handle("aten::einsum", _einsum).by_operator()
    return 2 * sum(int(found[name]) for name in PRODUCTS)


class _Positional(nn.Module):
    """A model as the tracer wants it: tensors in, one tensor out."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, tensors, strict=True))).logits


def _einsum(inputs: list[torch._C.Value], _outputs: list[torch._C.Value]) -> int:
    words = inputs[0].toIValue().replace(" ", "").partition("->")[0].split(",")
    shapes = [get_shape(factor) for factor in inputs[1].node().inputs()]
    return prod(
        dict(pair for both in zip(words, shapes, strict=True) for pair in _sizes(*both)).values()
    )


def _sizes(word: str, shape: list[int]) -> Iterator[tuple[str | int, int]]:
    """Sizes by index; those that an ellipsis stands for, by place from the end of it."""
    head, _, tail = word.partition("...")
    between = range(len(head), len(shape) - len(tail))
    yield from zip(head, shape, strict=False)
    yield from ((place - between.stop, shape[place]) for place in between)
    yield from zip(reversed(tail), reversed(shape), strict=False)
