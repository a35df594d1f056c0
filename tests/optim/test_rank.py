"""How much a projection keeps: ranks by rule, pieces by granularity, and the scheme in which it steps."""

import pytest
import torch
from torch import nn

from helpers.optimizing import F64, close, gradients
from helpers.projected_adam import PLAIN, SIDES, moved, optimize, seen, spectrum, unseen
from rankwise.optim import ProjectedAdam, ProjFactor
from rankwise.optim.parts import projectors

# Ranks ----------------------------------------------------------------------------------------------------------------


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
    found = [
        allocated_rank(shape, rank=r, rank_rule="proportional", side="left")
        for r in (4, 8, 16, 64, 128)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 7), (5, 38), (10, 76), (25, 192), (50, 384), (100, 768)]
)
def test_a_rank_in_percent_is_the_published_fraction(percent: int, expected: int) -> None:
    assert allocated_rank((768, 1000), rank=percent, rank_rule="percent") == expected


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
def test_the_energy_rule_keeps_the_fewest_that_meet_it(projector: str) -> None:
    values = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    grad, total, ranks = spectrum(values, 12, 20), sum(v**2 for v in values), []
    for energy in (0.1, 0.45, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999):
        options = {
            "rank": 6,
            "projector": projector,
            "rank_rule": "energy",
            "energy": energy,
            "oversample": 14,
        }
        _, optimizer = optimize(torch.zeros(12, 20, dtype=F64), [grad], **options)
        ranks.append(round(optimizer.effective_rank()))
        assert sum(v**2 for v in values[: ranks[-1]]) >= energy * total
        assert sum(v**2 for v in values[: ranks[-1] - 1]) < energy * total
        kept = moved(grad, **{**options, **PLAIN}).square().sum()
        assert kept.item() == pytest.approx(sum(v**2 for v in values[: ranks[-1]]))
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 3


def test_the_energy_rule_is_capped_by_the_rank() -> None:
    _, optimizer = optimize(
        torch.zeros(9, 9, dtype=F64),
        [torch.eye(9, dtype=F64)],
        rank=3,
        rank_rule="energy",
        energy=0.9,
    )
    assert optimizer.effective_rank() == 3


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.0, 6), (0.15, 5), (0.35, 4), (0.5, 3), (0.9, 1), (1.0, 0)]
)
def test_the_svt_rule_thresholds_singular_values(
    projector: str, threshold: float, kept: int
) -> None:
    """P P'G = U max(S - tau, 0) V' with tau = threshold sigma_1, at a refresh."""
    values = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    grad = spectrum(values, 12, 20)
    options = {
        "rank": 6,
        "projector": projector,
        "rank_rule": "svt",
        "threshold": threshold,
        "oversample": 14,
    }
    expected = spectrum([max(v - threshold * 5.0, 0.0) for v in values], 12, 20)
    assert close(moved(grad, **options, **PLAIN), expected, atol=1e-7)
    _, optimizer = optimize(torch.zeros(12, 20, dtype=F64), [grad], **options)
    assert optimizer.effective_rank() == kept == sum(v > threshold * 5.0 for v in values)


def test_the_effective_rank_is_a_mean_over_adaptive_matrices() -> None:
    one, two, fixed, vector = (
        nn.Parameter(torch.zeros(*s, dtype=F64)) for s in ((8, 8), (8, 8), (8, 8), (8,))
    )
    adaptive = {"rank_rule": "svt", "threshold": 0.5}
    optimizer = ProjectedAdam(
        [{"params": [one, two, vector], **adaptive}, {"params": [fixed]}], rank=5
    )
    assert optimizer.effective_rank() is None
    one.grad, two.grad, fixed.grad, vector.grad = (
        spectrum([4, 3], 8, 8),
        spectrum([4, 3, 3, 3, 1], 8, 8),
        fixed + 1,
        vector + 1,
    )
    optimizer.step()
    assert optimizer.effective_rank() == (2 + 4) / 2
    assert ProjectedAdam([nn.Parameter(torch.zeros(4, 4))], rank=2).effective_rank() is None


# Granularity and schemes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 2, 4, 0.5, 0.25])
@pytest.mark.parametrize(
    ("cls", "side"), [*((ProjectedAdam, side) for side in SIDES[:-1]), (ProjFactor, "short")]
)
def test_granularity_projects_pieces(
    cls, c: float, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One gradient of 1 where W has its k-th number: the step moves only what shares its piece, as P P' says."""
    shape = (8, 16)
    grad = gradients(1, *shape)[0]
    size = seen(grad, side, c).shape[0]
    basis = gradients(1, size, 2, seed=3)[0]
    monkeypatch.setattr(projectors, "draw", lambda kind, s, r, generator, like: basis[:s, :r])
    param = nn.Parameter(torch.zeros(shape, dtype=F64))
    param.grad = grad.clone()
    if cls is ProjectedAdam:
        ProjectedAdam([param], rank=2, projector="normal", granularity=c, side=side, **PLAIN).step()
        expected = unseen(basis @ (basis.mT @ seen(grad, side, c)), shape, side, c)
    else:
        ProjFactor([param], 1.0, rank=2, granularity=c, eps=0.0).step()
        back = unseen(basis @ (basis.mT @ seen(grad, side, c)), shape, side, c)
        expected = back / (torch.outer((back**2).sum(1), (back**2).sum(0)) / (back**2).sum()).sqrt()
    assert close(param, -expected, atol=1e-12)


def test_the_left_side_interleaves_rows() -> None:
    """With c = 4 on the left of a wide matrix a gradient in row 1 reaches rows 1, 5, 9, ...; on the right its own piece."""
    grad = torch.zeros(12, 16, dtype=F64)
    grad[1, 5] = 1.0
    left = moved(grad, rank=2, projector="normal", granularity=4, side="left", **PLAIN)
    assert {tuple(i) for i in left.nonzero().tolist()} == {(1, 5), (5, 5), (9, 5)}
    right = moved(grad, rank=2, projector="normal", granularity=4, side="right", **PLAIN)
    assert {tuple(i) for i in right.nonzero().tolist()} == {(1, 4), (1, 5), (1, 6), (1, 7)}
    glued = moved(grad, rank=2, projector="normal", granularity=0.5, side="right", **PLAIN)
    assert {tuple(i) for i in glued.nonzero().tolist()} == {
        (r, k) for r in (0, 1) for k in range(16)
    }


@pytest.mark.parametrize("cls", [ProjectedAdam, ProjFactor])
@pytest.mark.parametrize(
    ("shape", "c"),
    [((8, 16), 3), ((16, 8), 3), ((5, 16), 2), ((16, 5), 2), ((15, 8), 0.5), ((8, 15), 1 / 7)],
)
def test_a_granularity_that_does_not_divide_is_refused(
    cls, shape: tuple[int, int], c: float
) -> None:
    with pytest.raises(ValueError, match=f"granularity: got .* {shape[0]} x {shape[1]} matrix"):
        cls([nn.Parameter(torch.zeros(shape))], rank=2, granularity=c)


@pytest.mark.parametrize(
    ("shape", "c"),
    [((98, 100), 49), ((100, 98), 49), ((3, 6), 1 / 3), ((98, 147), 1 / 49), ((12, 103), 3)],
)
def test_any_granularity_that_divides_is_taken(shape: tuple[int, int], c: float) -> None:
    """Also those whose reciprocals are not exact."""
    grad = gradients(1, *shape)[0]
    basis_rank = min(seen(grad, "short", c).shape)
    assert close(moved(grad, rank=basis_rank, granularity=c, **PLAIN), grad, atol=1e-10)


@pytest.mark.parametrize(
    ("projector", "side"),
    [("svd", "both"), *((p, side) for p in ("svd", "normal", "dct") for side in SIDES[:-1])],
)
def test_the_original_scheme_is_adam_on_the_back_projected_gradient(
    projector: str, side: str
) -> None:
    """The moments of P P'G (P P'G Q Q' for both sides) in the weight's own space; P of each step comes from plain steps."""
    grads, weight = gradients(5, 6, 10), gradients(1, 6, 10, seed=2)[0]
    options = {"rank": 3, "projector": projector, "side": side, "interval_steps": 2}
    found, _ = optimize(weight, grads, **options, scheme="original", scale=1.0, weight_decay=0.1)
    plain, theirs = nn.Parameter(torch.zeros_like(weight)), nn.Parameter(weight.clone())
    projection, adamw = (
        ProjectedAdam([plain], **options, **PLAIN),
        torch.optim.AdamW([theirs], 0.1, weight_decay=0.1),
    )
    for grad in grads:
        before = plain.detach().clone()
        plain.grad = grad.clone()
        projection.step()
        theirs.grad = before - plain.detach()
        adamw.step()
    assert close(found, theirs, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [{"rank": 0}, {"rank": 2, "interval_steps": 0}, {"rank": 2, "rank_rule": "svt", "projector": "normal"},
     {"rank": 2, "rank_rule": "energy", "projector": "dct"}, {"rank": 2, "side": "both", "projector": "normal"},
     {"rank": 2, "drift": 0.5, "projector": "dct"}, {"rank": 2, "random_from_step": 3, "projector": "normal"},
     {"rank": 2, "transport": "project", "side": "both"}, {"rank": 2, "transport": "project", "drift": 0.5}],
    ids=str,
)  # fmt: skip
def test_options_that_exclude_each_other_are_refused_at_once(options: dict) -> None:
    with pytest.raises(ValueError, match=r"got .*, allowed: "):
        ProjectedAdam([nn.Parameter(torch.zeros(4, 6))], **options)
