"""Fira, step by step against the authors' package, the paper's equations, and what follows from them."""

import itertools
import math

import fira
import pytest
import torch
from fira import gradient_projection
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, adam, close, gradients, optimize, short
from rankwise.optim import Fira, ProjectedAdam

every_shape = pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
LR, DECAY, ALPHA = 0.1, 0.1, 0.25
ZEROS = torch.zeros(6, 10, dtype=F64)


def correction(t: int) -> float:
    """Adam's bias corrections as one factor of the step size."""
    return math.sqrt(1 - B2**t) / (1 - B1**t)


@pytest.mark.parametrize("kind", ["random", "constant"])
@every_shape
def test_the_published_residual_steps_as_the_authors(
    shape: tuple[int, int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their projector takes our basis, because singular vectors have no sign. Theirs adds 1e-8 to the last norm."""
    ours, theirs = (nn.Parameter(torch.ones(shape, dtype=F64)) for _ in range(2))
    options = {"rank": 3, "scale": ALPHA, "interval_steps": 3, "residual": "published"}
    optimizer = Fira([ours], LR, **options, weight_decay=DECAY)
    refreshed = []

    def our_basis(self, weights: Tensor, rank: int, type: str) -> Tensor:  # noqa: A002
        basis = optimizer.state[ours]["basis"].clone()
        vectors = torch.linalg.svd(weights if type == "left" else weights.mT).U[:, :rank]
        assert close((basis.mT @ vectors).abs(), torch.eye(rank, dtype=F64), 1e-9)
        refreshed.append(type)
        return basis if type == "left" else basis.mT

    monkeypatch.setattr(gradient_projection.GradientProjector, "get_orthogonal_matrix", our_basis)
    group = {"params": [theirs], "rank": 3, "update_proj_gap": 3, "alpha": ALPHA}
    authors = fira.FiraAdamW(
        [{**group, "proj_type": "std"}], lr=LR, weight_decay=DECAY, no_deprecation_warning=True
    )
    grads = gradients(7, *shape) if kind == "random" else gradients(1, *shape) * 12
    for grad in grads:
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        optimizer.step()
        authors.step()
        assert close(ours, theirs, 1e-8)
    assert refreshed == ["left" if shape[0] < shape[1] else "right"] * math.ceil(len(grads) / 3)


@pytest.mark.parametrize("convention", ["torch", "transformers"])
@every_shape
def test_the_papers_residual_is_its_equations(shape: tuple[int, int], convention: str) -> None:
    """W <- W - lr (a P N + S), S = phi (G - P R); the growth of S without its bias correction is limited."""
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    options = {"rank": 3, "scale": ALPHA, "interval_steps": 3, "convention": convention}
    optimizer = Fira([param], LR, **options, weight_decay=DECAY)
    side = max(shape)
    m, v = torch.zeros(3, side, dtype=F64), torch.zeros(3, side, dtype=F64)
    was_limited, last_norm = [], math.inf
    grads = gradients(6, *shape)
    grads[1] = -0.8 * grads[0]  # the momentum nearly vanishes, so nothing is limited
    for t, grad in enumerate(grads, start=1):
        param.grad = grad.clone()
        optimizer.step()
        g, basis = short(grad), optimizer.state[param]["basis"].clone()
        low = basis.mT @ g
        n = adam(m, v, low, t, 1e-6, convention)
        s = n.norm(dim=0) / low.norm(dim=0) * (g - basis @ low)
        norm = s.norm().item() / correction(t)
        was_limited.append(norm > 1.01 * last_norm)
        if was_limited[-1]:
            s = s * (1.01 * last_norm / norm)
        last_norm = min(norm, 1.01 * last_norm)
        update = ALPHA * basis @ n + s
        update = update if shape[0] < shape[1] else update.mT
        if convention == "torch":
            expected = (1 - LR * DECAY) * expected - LR * update
        else:
            expected = (1 - LR * DECAY) * (expected - LR * update)
        assert close(param, expected, 1e-7)  # the code adds 1e-8 to ||R_j||
    assert set(was_limited[1:]) == {True, False}


def test_at_full_rank_it_is_the_projection() -> None:
    """P P^T G + (G - P P^T G) = G: nothing is left over, so the step is the projected Adam's."""
    options = {"rank": 6, "interval_steps": 2, "convention": "transformers", "eps": 1e-6}
    ours, _ = optimize(Fira, ZEROS, gradients(5, 6, 10), scale=1.0, **options)
    plain, _ = optimize(ProjectedAdam, ZEROS, gradients(5, 6, 10), scale=1.0, **options)
    assert close(ours, plain, 1e-12)


def test_the_published_residual_keeps_a_share_inside_the_subspace() -> None:
    """At full rank and scale a it is phi (1 - a) G, and the paper's is 0."""
    grads, options = gradients(1, 6, 10), {"rank": 6, "scale": 0.25}
    published, _ = optimize(Fira, ZEROS, grads, residual="published", **options)
    paper, state = optimize(Fira, ZEROS, grads, **options)
    low = state["basis"].mT @ grads[0]
    n = low / (low.abs() + 1e-6 / math.sqrt(1 - B2))
    residual = n.norm(dim=0) / low.norm(dim=0) * 0.75 * grads[0]
    assert close((paper - published) / 0.1, residual, 1e-7)


def test_before_bias_correction_the_residual_grows_by_a_hundredth_at_most() -> None:
    """The residual is the part of a step that lies outside the basis."""
    param = nn.Parameter(ZEROS.clone())
    optimizer, norms = Fira([param], 0.1, rank=2), []
    for t, grad in enumerate(gradients(12, 6, 10), start=1):
        before = param.detach().clone()
        param.grad = grad * 1.5**t
        optimizer.step()
        basis, moved = optimizer.state[param]["basis"], (before - param.detach()) / 0.1
        outside = (moved - basis @ (basis.mT @ moved)).norm().item()
        norms.append(outside / correction(t))
    ratios = [after / before for before, after in itertools.pairwise(norms)]
    assert max(ratios) <= 1.01 + 1e-9
    assert max(ratios) > 1.0099
