"""APOLLO and APOLLO-Mini, step by step against the authors' apollo_torch, and what follows from their equations."""

import math

import apollo_torch
import pytest
import torch
from apollo_torch import random_projector
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients, optimize, short
from rankwise.optim import Apollo
from rankwise.optim.parts import projectors

LR, DECAY = 0.1, 0.1
every_shape = pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
both_shapes = pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
variants = pytest.mark.parametrize(
    ("scaling", "rank", "scale"), [("channel", 3, 1.0), ("tensor", 1, 128.0)]
)


@pytest.fixture
def same_bases(monkeypatch: pytest.MonkeyPatch, drawn: list[Tensor]) -> list[Tensor]:
    """The authors' projector takes the basis that ours drew last; returned are those that it took."""
    taken = []

    def last_drawn(self, weights: Tensor, rank: int, type: str, seed: int) -> Tensor:  # noqa: A002
        taken.append(drawn[-1])
        return drawn[-1] if type == "left" else drawn[-1].mT

    monkeypatch.setattr(random_projector.GradientProjector, "get_orthogonal_matrix", last_drawn)
    return taken


def authors(param: nn.Parameter, rank: int, scaling: str, scale: float) -> torch.optim.Optimizer:
    """The authors' optimizer with a refresh every three steps."""
    group = {
        "params": [param],
        "rank": rank,
        "proj": "random",
        "proj_type": "std",
        "update_proj_gap": 3,
        "scale": scale,
        "scale_type": scaling,
    }
    return apollo_torch.APOLLOAdamW([group], lr=LR, weight_decay=DECAY)


def run_both(
    grads: list[Tensor], scaling: str, rank: int, scale: float
) -> list[tuple[Tensor, Tensor]]:
    """Our weight and the authors' after each step."""
    ours, theirs = (nn.Parameter(torch.ones_like(grads[0])) for _ in range(2))
    options = {"rank": rank, "scaling": scaling, "scale": scale, "interval_steps": 3}
    optimizer = Apollo([ours], LR, **options, weight_decay=DECAY)
    reference = authors(theirs, rank, scaling, scale)
    weights = []
    for grad in grads:
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        optimizer.step()
        reference.step()
        weights.append((ours.detach().clone(), theirs.detach().clone()))
    return weights


@variants
@every_shape
def test_random_gradients_step_as_the_authors(
    shape: tuple[int, int], scaling: str, rank: int, scale: float, same_bases: list[Tensor]
) -> None:
    """Theirs adds 1e-8 to the last norm. Three bases are used in seven steps."""
    weights = run_both(gradients(7, *shape), scaling, rank, scale)
    for ours, theirs in weights:
        assert close(ours, theirs, 1e-8)
    assert len(same_bases) == 3
    assert not torch.equal(same_bases[0], same_bases[1])
    assert not close(weights[0][0], weights[-1][0], 0.1)


@variants
@both_shapes
def test_constant_gradients_step_as_the_authors(
    shape: tuple[int, int], scaling: str, rank: int, scale: float, same_bases: list[Tensor]
) -> None:
    for ours, theirs in run_both(gradients(1, *shape) * 12, scaling, rank, scale):
        assert close(ours, theirs, 1e-8)


@pytest.mark.parametrize("scaling", ["channel", "tensor"])
def test_a_constant_gradients_steps_shrink_as_the_limiter_says(scaling: str) -> None:
    """By hand: c_t = sqrt(1 - .999^t) / (1 - .9^t); u_t = min(1 / c_t, 1.01 u_{t-1}); the step is c_t u_t.

    c is .316228, .235317, .202010, .183769, and 1 / c grows by more than 1.01, so u is 3.162278,
    then 1.01, 1.01^2, 1.01^3 times that.
    """
    grad = gradients(1, 6, 10)[0]
    param = nn.Parameter(torch.zeros_like(grad))
    optimizer, norms = Apollo([param], 1.0, rank=3, scaling=scaling, eps=0.0), []
    for _ in range(4):
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        norms.append((param.detach() - before).norm().item())
    ratios = [norm / norms[0] for norm in norms]
    assert ratios == pytest.approx([1.0, 0.751578, 0.651654, 0.598737], abs=2e-6)


@both_shapes
def test_in_the_whole_space_channels_have_adams_norms(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(kind, size: int, rank: int, generator, like: Tensor) -> Tensor:
        return torch.eye(size, rank, dtype=like.dtype)

    monkeypatch.setattr(projectors, "draw", identity)
    start = torch.zeros(shape, dtype=F64)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    apollo = Apollo([ours], 0.1, rank=6, limit=math.inf, convention="torch", eps=1e-8)
    torchs = torch.optim.Adam([theirs], 0.1)
    for grad in gradients(4, *shape):
        ours_before, theirs_before = ours.detach().clone(), theirs.detach().clone()
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        apollo.step()
        torchs.step()
        moved = short(ours.detach() - ours_before)
        expected = short(theirs.detach() - theirs_before)
        assert close(moved.norm(dim=0), expected.norm(dim=0), 1e-7)
        direction = short(grad) / short(grad).norm(dim=0)
        assert close(moved / moved.norm(dim=0), -direction, 1e-10)


def test_minis_step_is_along_the_gradient() -> None:
    param = nn.Parameter(torch.zeros(6, 10, dtype=F64))
    optimizer = Apollo([param], 0.1, rank=1, scaling="tensor", scale=128.0)
    for grad in gradients(4, 6, 10):
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        moved = (before - param.detach()).flatten()
        cosine = torch.cosine_similarity(moved, grad.flatten(), dim=0)
        assert cosine.item() == pytest.approx(1.0, abs=1e-12)


def test_the_seed_decides_the_projection_and_no_basis_is_kept() -> None:
    grads, start = gradients(2, 6, 10), torch.zeros(6, 10, dtype=F64)
    runs = [optimize(Apollo, start, grads, rank=2, seed=seed) for seed in (1, 1, 2)]
    (one, state), (same, _), (other, _) = runs
    assert torch.equal(one, same)
    assert not close(one, other, 1e-3)
    assert "basis" not in state
