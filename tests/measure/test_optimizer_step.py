"""FLOPs of an optimizer's step, plain and with a refresh of its bases, in closed form."""

import torch
from torch import nn

from rankwise.measure.flops.optimizer_step import count_step
from rankwise.optim import AdamW, ProjectedAdam


def parameter() -> nn.Parameter:
    """One matrix (4, 6) with a gradient, on the meta device."""
    param = nn.Parameter(torch.empty(4, 6, device="meta"))
    param.grad = torch.empty_like(param)
    return param


def projected(projector: str, **options: object) -> ProjectedAdam:
    """Rank 1, a refresh every 5 steps."""
    optimizer = ProjectedAdam(
        [parameter()], rank=1, projector=projector, scale=1.0, interval_steps=5, **options
    )
    optimizer.allocate()
    return optimizer


def step_flops(optimizer: torch.optim.Optimizer, taken: int) -> int:
    return sum(count_step(optimizer, taken)[0].values())


# P'G with P (4, 1) and G (4, 6), then P times the direction (1, 6).
PLAIN = 2 * (2 * 4 * 6)


def test_a_refresh_is_its_sketch_powers_and_decompositions() -> None:
    """One power iteration on a sketch of l = rank + oversample = 2 columns."""
    optimizer = projected("rsvd", oversample=1, power_iterations=1)
    products = 4 * (2 * 4 * 6 * 2)  # sketch, two of the power iteration, and the projection
    qr_tall = int(4 * 6 * 2**2 - 4 * 2**3 / 3)  # of (6, 2)
    qr_short = int(4 * 4 * 2**2 - 4 * 2**3 / 3)  # of (4, 2)
    svd_small = 22 * 2**3
    basis = 2 * 4 * 2 * 1  # Q U
    refresh = products + 2 * qr_tall + 2 * qr_short + svd_small + basis
    assert step_flops(optimizer, 1) == PLAIN
    assert step_flops(optimizer, 5) == PLAIN + refresh
    assert step_flops(optimizer, 6) == PLAIN


def test_a_refresh_by_svd_is_that_of_the_whole_gradient() -> None:
    optimizer = projected("svd")
    by_golub_reinsch, by_qr = 14 * 6 * 4**2 + 8 * 4**3, 6 * 6 * 4**2 + 20 * 4**3
    assert step_flops(optimizer, 5) - PLAIN == min(by_golub_reinsch, by_qr)


def test_a_refresh_that_depends_on_values_counts_as_due() -> None:
    always = step_flops(projected("rsvd", oversample=1, power_iterations=1), 5)
    drifting = projected("rsvd", oversample=1, power_iterations=1, drift=0.5)
    assert step_flops(drifting, 1) >= always


def test_random_numbers_are_free() -> None:
    assert step_flops(projected("normal"), 5) == PLAIN


def test_adamw_has_no_product() -> None:
    assert step_flops(AdamW([parameter()]), 1) == 0
