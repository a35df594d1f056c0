"""How much a projection keeps: ranks by rule, pieces by granularity, and the scheme in which it steps."""

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients
from helpers.optimizing import optimize as optimize_with
from helpers.projected_adam import PLAIN, SIDES, moved, optimize, seen, spectrum, unseen
from rankwise.optim import ProjectedAdam, ProjFactor
from rankwise.optim.parts import projectors

# Ranks --------------------------------------------------------------------------------------------

VALUES = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]  # singular values of the gradients below


def allocated_rank(shape: tuple[int, int], **options) -> int:
    param = nn.Parameter(torch.empty(shape, device="meta"))
    optimizer = ProjectedAdam([param], **options)
    optimizer.allocate()
    return optimizer.state[param]["basis"].shape[1]


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [((768, 768), 16, 16), ((30, 7), 16, 7), ((7, 30), 16, 7), ((2, 768), 4, 2), ((5, 5), 1, 1)],
)
def test_a_fixed_rank_is_capped_by_the_matrix(
    shape: tuple[int, int], rank: int, expected: int
) -> None:
    assert allocated_rank(shape, rank=rank) == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((768, 768), [4, 8, 16, 64, 128]),
        ((512, 768), [2, 5, 10, 42, 85]),
        ((2, 768), [1] * 5),
        ((3072, 768), [4, 8, 16, 64, 128]),
    ],
)
def test_proportional_ranks_are_system_as(shape: tuple[int, int], expected: list[int]) -> None:
    options = {"rank_rule": "proportional", "side": "left"}
    assert [allocated_rank(shape, rank=r, **options) for r in (4, 8, 16, 64, 128)] == expected


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 7), (5, 38), (10, 76), (25, 192), (50, 384), (100, 768)]
)
def test_a_rank_in_percent_is_the_published_fraction(percent: int, expected: int) -> None:
    assert allocated_rank((768, 1000), rank=percent, rank_rule="percent") == expected


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
def test_the_energy_rule_keeps_the_fewest_that_meet_it(projector: str) -> None:
    grad, squares = spectrum(VALUES, 12, 20), [value**2 for value in VALUES]
    options = {"rank": 6, "projector": projector, "rank_rule": "energy", "oversample": 14}
    ranks = []
    for energy in (0.1, 0.45, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999):
        _, optimizer = optimize(torch.zeros(12, 20, dtype=F64), [grad], energy=energy, **options)
        rank = round(optimizer.effective_rank())
        assert sum(squares[: rank - 1]) < energy * sum(squares) <= sum(squares[:rank])
        kept = moved(grad, energy=energy, **options, **PLAIN).square().sum()
        assert kept.item() == pytest.approx(sum(squares[:rank]))
        ranks.append(rank)
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 3


def test_the_energy_rule_is_capped_by_the_rank() -> None:
    eye = torch.eye(9, dtype=F64)
    _, optimizer = optimize(0 * eye, [eye], rank=3, rank_rule="energy", energy=0.9)
    assert optimizer.effective_rank() == 3


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.0, 6), (0.15, 5), (0.35, 4), (0.5, 3), (0.9, 1), (1.0, 0)]
)
def test_the_svt_rule_thresholds_singular_values(
    projector: str, threshold: float, kept: int
) -> None:
    """P P^T G = U max(S - tau, 0) V^T with tau = threshold sigma_1, at a refresh."""
    grad, tau = spectrum(VALUES, 12, 20), threshold * VALUES[0]
    options = {"rank": 6, "projector": projector, "rank_rule": "svt", "oversample": 14}
    options["threshold"] = threshold
    expected = spectrum([max(value - tau, 0.0) for value in VALUES], 12, 20)
    assert close(moved(grad, **options, **PLAIN), expected, atol=1e-7)
    _, optimizer = optimize(torch.zeros(12, 20, dtype=F64), [grad], **options)
    assert optimizer.effective_rank() == kept == sum(value > tau for value in VALUES)


def test_the_effective_rank_is_a_mean_over_adaptive_matrices() -> None:
    one, two, fixed = (nn.Parameter(torch.zeros(8, 8, dtype=F64)) for _ in range(3))
    vector = nn.Parameter(torch.zeros(8, dtype=F64))
    adaptive = {"params": [one, two, vector], "rank_rule": "svt", "threshold": 0.5}
    optimizer = ProjectedAdam([adaptive, {"params": [fixed]}], rank=5)
    assert optimizer.effective_rank() is None
    one.grad, two.grad = spectrum([4, 3], 8, 8), spectrum([4, 3, 3, 3, 1], 8, 8)
    fixed.grad, vector.grad = fixed + 1, vector + 1
    optimizer.step()
    assert optimizer.effective_rank() == (2 + 4) / 2
    assert ProjectedAdam([nn.Parameter(torch.zeros(4, 4))], rank=2).effective_rank() is None


# Granularity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 2, 4, 0.5, 0.25])
@pytest.mark.parametrize(
    ("cls", "side"), [*((ProjectedAdam, side) for side in SIDES[:-1]), (ProjFactor, "short")]
)
def test_granularity_projects_pieces(
    cls: type, c: float, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first step is by P P^T of the reshaped gradient, ProjFactor's over its factored root."""
    shape = (8, 16)
    grad = gradients(1, *shape)[0]
    basis = gradients(1, seen(grad, side, c).shape[0], 2, seed=3)[0]
    monkeypatch.setattr(projectors, "draw", lambda kind, s, r, generator, like: basis[:s, :r])
    param = nn.Parameter(torch.zeros(shape, dtype=F64))
    param.grad = grad.clone()
    expected = unseen(basis @ (basis.mT @ seen(grad, side, c)), shape, side)
    if cls is ProjectedAdam:
        ProjectedAdam([param], rank=2, projector="normal", granularity=c, side=side, **PLAIN).step()
    else:
        ProjFactor([param], 1.0, rank=2, granularity=c, eps=0.0).step()
        square = expected**2
        expected = expected / (torch.outer(square.sum(1), square.sum(0)) / square.sum()).sqrt()
    assert close(param, -expected, atol=1e-12)


@pytest.mark.parametrize(
    ("side", "c", "reached"),
    [
        ("left", 4, {(1, 5), (5, 5), (9, 5)}),
        ("right", 4, {(1, 4), (1, 5), (1, 6), (1, 7)}),
        ("right", 0.5, {(row, column) for row in (0, 1) for column in range(16)}),
    ],
)
def test_a_gradient_reaches_its_own_piece(
    side: str, c: float, reached: set[tuple[int, int]]
) -> None:
    """On the left of a wide matrix a piece is every fourth row of a column, on the right a part of a row."""
    grad = torch.zeros(12, 16, dtype=F64)
    grad[1, 5] = 1.0
    step = moved(grad, rank=2, projector="normal", granularity=c, side=side, **PLAIN)
    assert {tuple(index) for index in step.nonzero().tolist()} == reached


@pytest.mark.parametrize("cls", [ProjectedAdam, ProjFactor])
@pytest.mark.parametrize(
    ("shape", "c"),
    [((8, 16), 3), ((16, 8), 3), ((5, 16), 2), ((16, 5), 2), ((15, 8), 0.5), ((8, 15), 1 / 7)],
)
def test_a_granularity_that_does_not_divide_is_refused(
    cls: type, shape: tuple[int, int], c: float
) -> None:
    with pytest.raises(ValueError, match=f"granularity: got .* {shape[0]} x {shape[1]} matrix"):
        cls([nn.Parameter(torch.zeros(shape))], rank=2, granularity=c)


@pytest.mark.parametrize(
    ("shape", "c"),
    [((98, 100), 49), ((100, 98), 49), ((3, 6), 1 / 3), ((98, 147), 1 / 49), ((12, 103), 3)],
)
def test_any_granularity_that_divides_is_taken(shape: tuple[int, int], c: float) -> None:
    """Also if its reciprocal has no exact float."""
    grad = gradients(1, *shape)[0]
    full_rank = min(seen(grad, "short", c).shape)
    assert close(moved(grad, rank=full_rank, granularity=c, **PLAIN), grad, atol=1e-10)


# Schemes and options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("projector", "side"),
    [("svd", "both"), *((p, side) for p in ("svd", "normal", "dct") for side in SIDES[:-1])],
)
def test_the_original_scheme_is_adam_on_the_back_projected_gradient(
    projector: str, side: str
) -> None:
    """P P^T G of each step (P P^T G Q Q^T for both sides) is what a plain projected step moves by."""
    grads, weight = gradients(5, 6, 10), gradients(1, 6, 10, seed=2)[0]
    options = {"rank": 3, "projector": projector, "side": side, "interval_steps": 2}
    ours, _ = optimize(weight, grads, **options, scheme="original", scale=1.0, weight_decay=0.1)
    param = nn.Parameter(torch.zeros_like(weight))
    projection = ProjectedAdam([param], **options, **PLAIN)
    projected: list[Tensor] = []
    for grad in grads:
        before = param.detach().clone()
        param.grad = grad.clone()
        projection.step()
        projected.append(before - param.detach())
    theirs, _ = optimize_with(torch.optim.AdamW, weight, projected, weight_decay=0.1)
    assert close(ours, theirs, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"rank": 2, "interval_steps": 0},
        {"rank": 2, "rank_rule": "svt", "projector": "normal"},
        {"rank": 2, "rank_rule": "energy", "projector": "dct"},
        {"rank": 2, "side": "both", "projector": "normal"},
        {"rank": 2, "drift": 0.5, "projector": "dct"},
        {"rank": 2, "random_from_step": 3, "projector": "normal"},
        {"rank": 2, "transport": "project", "side": "both"},
        {"rank": 2, "transport": "project", "drift": 0.5},
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_refused_at_once(options: dict) -> None:
    with pytest.raises(ValueError, match=r"got .*, allowed: "):
        ProjectedAdam([nn.Parameter(torch.zeros(4, 6))], **options)
