"""What decompositions, products in place and pointwise operations cost."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rankwise.measure.flops.formulas import FORMULAS, Elementwise, eigh, qr, svd


def test_decompositions_cost_what_the_book_says() -> None:
    """Golub & Van Loan, 4th edition, sections 5.2, 8.3 and 8.6; m = 9, n = 3 and the like."""
    assert qr((9, 3)) == 4 * 9 * 9 - 4 * 27 // 3  # 4 m n^2 - 4 n^3 / 3
    assert qr((5, 9, 3)) == 5 * (4 * 9 * 9 - 4 * 27 // 3)
    assert qr((6, 6), "reduced") == qr((6, 6), "complete") == 8 * 6**3 // 3
    assert qr((9, 3), "r") == 2 * 9 * 9 - 2 * 27 // 3  # 2 m n^2 - 2 n^3 / 3
    assert svd((10, 2)) == 6 * 10 * 4 + 20 * 8  # by way of QR, less than 14 m n^2 + 8 n^3
    assert svd((2, 10)) == 6 * 10 * 4 + 20 * 8
    assert svd((3, 2, 2), True) == 3 * 22 * 8  # square, by Golub & Reinsch
    assert svd((10, 2), compute_uv=False) == 2 * 10 * 4 + 2 * 8
    assert eigh((2, 4, 4)) == 2 * 9 * 64


@pytest.mark.parametrize(("call", "wanted"), [
    (torch.linalg.qr, 4 * 7 * 9 - 4 * 27 // 3),
    (lambda g: torch.linalg.qr(g, mode="r"), 2 * 7 * 9 - 2 * 27 // 3),
    (lambda g: torch.linalg.svd(g, full_matrices=False), 6 * 7 * 9 + 20 * 27),
    (lambda g: torch.linalg.eigh(g.mT @ g), 9 * 27 + 2 * 3 * 7 * 3),
    (lambda g: g @ g[0], 2 * 7 * 3),
    (lambda g: g.new_zeros(7, 7).addmm_(g, g.mT), 2 * 7 * 7 * 3),
], ids=["qr", "qr_r", "svd", "eigh", "mv", "addmm_"])  # fmt: skip
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_torch_counts_what_a_call_costs(call, wanted: int, device: str) -> None:
    matrix = torch.ones(7, 3, device=device)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        call(matrix)
    assert counter.get_total_flops() == wanted


def test_a_pointwise_operation_costs_one_per_number_written() -> None:
    x = torch.ones(4, 5)
    with Elementwise() as counter:
        (x * 2).add_(1).sqrt_()  # 3 x 20
        x.clone()
        torch._foreach_mul_([x, x[0]], 2.0)  # 20 + 5
        x.sum()
    assert counter.flops == 85


def test_a_condition_on_a_meta_tensor_holds() -> None:
    with Elementwise() as counter:
        holds = bool((torch.empty(3, device="meta") > 0).any())
    assert holds
    assert counter.flops == 3
