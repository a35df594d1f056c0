"""Optimizers whose basis is drawn from a seed, against their equations: APOLLO, Flora and ProjFactor."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, adam, close, gradients, optimize, short
from rankwise.optim import Apollo, Flora, ProjectedAdam, ProjFactor
from rankwise.optim.parts import projectors

both_shapes = pytest.mark.parametrize("shape", [(6, 10), (10, 6)])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The bases that were drawn, in order."""
    bases, draw = [], projectors.draw

    def spy(*arguments) -> Tensor:
        bases.append(draw(*arguments))
        return bases[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    return bases


def changes(bases: list[Tensor]) -> list[bool]:
    """Whether each basis differs from the one before it."""
    return [not torch.equal(before, after) for before, after in itertools.pairwise(bases)]


def as_weight(update: Tensor, shape: tuple[int, int]) -> Tensor:
    """An update (s, L) in the weight's shape."""
    return update if shape[0] < shape[1] else update.mT


@pytest.mark.parametrize("cls", [Apollo, Flora, ProjFactor])
def test_the_seed_decides_the_projection(cls: type) -> None:
    grads, start = gradients(2, 6, 10), torch.zeros(6, 10, dtype=F64)
    one, same, other = (optimize(cls, start, grads, rank=2, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not close(one, other, 1e-3)


# APOLLO -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scaling", "rank"), [("channel", 3), ("tensor", 1)])
@both_shapes
def test_apollo_is_its_equations(
    shape: tuple[int, int], scaling: str, rank: int, drawn: list[Tensor]
) -> None:
    """R = P^T G, N = Adam(R), U = G ||N_j|| / ||R_j|| limited to 1.01, W <- W - lr sqrt(scale) U."""
    lr, scale, last_norm = 0.1, 4.0, math.inf
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    options = {"rank": rank, "scaling": scaling, "scale": scale, "interval_steps": 3}
    optimizer = Apollo([param], lr, **options, weight_decay=0.1)
    m, v, used = torch.zeros(rank, 10, dtype=F64), torch.zeros(rank, 10, dtype=F64), []
    for t, grad in enumerate(gradients(6, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        used.append(drawn[-1])
        low = used[-1].mT @ short(grad)
        n = adam(m, v, low, t, 1e-6, "transformers")
        dims = 0 if scaling == "channel" else (0, 1)
        norm = torch.linalg.vector_norm
        update = short(grad) * (norm(n, dim=dims) / norm(low, dim=dims))
        update = update * min(1.0, 1.01 * last_norm / update.norm().item())
        last_norm = update.norm().item()
        update = math.sqrt(scale) * as_weight(update, shape)
        expected = (1 - lr * 0.1) * (expected - lr * update)
        assert close(param, expected, 1e-6)  # the code adds 1e-8 to ||R_j||, which may be small
    assert changes(used) == [False, False, True, False, False]
    assert "basis" not in optimizer.state[param]


@both_shapes
def test_apollo_in_the_whole_space_has_adams_channel_norms(
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


def test_apollo_minis_step_is_along_the_gradient() -> None:
    param = nn.Parameter(torch.zeros(6, 10, dtype=F64))
    optimizer = Apollo([param], 0.1, rank=1, scaling="tensor", scale=128.0)
    for grad in gradients(4, 6, 10):
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        moved = (before - param.detach()).flatten()
        cosine = torch.cosine_similarity(moved, grad.flatten(), dim=0)
        assert cosine.item() == pytest.approx(1.0, abs=1e-12)


# Flora --------------------------------------------------------------------------------------------


@both_shapes
def test_flora_is_its_equations(shape: tuple[int, int], drawn: list[Tensor]) -> None:
    """U = G / sqrt(v) of root mean square at most 1; M <- b M + (1 - b) P^T U; carried over by P_new^T P."""
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    optimizer = Flora([param], 0.1, rank=3, interval_steps=3, weight_decay=0.1)
    rows, columns, momentum, used = 0, 0, torch.zeros(3, 10, dtype=F64), []
    for t, grad in enumerate(gradients(7, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        used.append(drawn[-1])
        decay = 1 - t**-0.8
        rows = decay * rows + (1 - decay) * (grad**2).mean(1)
        columns = decay * columns + (1 - decay) * (grad**2).mean(0)
        update = grad / (torch.outer(rows, columns) / rows.mean()).sqrt()
        update = update / max(1.0, (update**2).mean().sqrt().item())
        if t in (4, 7):
            momentum = used[-1].mT @ used[-2] @ momentum
        momentum = 0.9 * momentum + 0.1 * used[-1].mT @ short(update)
        step = as_weight(used[-1] @ momentum, shape)
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * step
        assert close(param, expected, 1e-12)
    assert changes(used) == [False, False, True, False, False, True]


# ProjFactor ---------------------------------------------------------------------------------------


def pieces(matrix: Tensor, c: float) -> Tensor:
    """VLoRP's reshape, as (s, L): rows of a tall matrix are cut in c, c rows of a wide one are joined."""
    m, n = matrix.shape
    if m >= n:
        return matrix.reshape(round(m * c), round(n / c)).mT
    return matrix.reshape(round(m / c), round(n * c))


def whole(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    """The inverse of `pieces`."""
    return (matrix.mT if shape[0] >= shape[1] else matrix).reshape(shape)


@pytest.mark.parametrize("convention", ["torch", "transformers"])
@pytest.mark.parametrize("transport", ["none", "reset", "project"])
@pytest.mark.parametrize(("shape", "c"), [((8, 12), 1), ((12, 8), 4), ((8, 12), 2), ((12, 8), 0.5)])
def test_projfactor_is_its_equations(
    shape: tuple[int, int], c: float, transport: str, convention: str, drawn: list[Tensor]
) -> None:
    """M <- b1 M + (1 - b1) P^T G, v_r and v_c sums of (P P^T G)^2, W <- W - lr P M / (sqrt(v) + eps)."""
    eps, used, steps_since_reset = 1e-2, [], 0
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    options = {"transport": transport, "convention": convention, "eps": eps, "interval_steps": 3}
    optimizer = ProjFactor([param], 0.1, rank=2, granularity=c, weight_decay=0.1, **options)
    m, rows, columns = 0, 0, 0
    for t, grad in enumerate(gradients(7, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        used.append(drawn[-1])
        basis = used[-1]
        assert basis.shape == (pieces(grad, c).shape[0], 2)
        if t in (4, 7) and transport == "reset":
            m, steps_since_reset = 0, 0
        elif t in (4, 7) and transport == "project":
            m = basis.mT @ used[-2] @ m
        steps_since_reset += 1
        low = basis.mT @ pieces(grad, c)
        m = B1 * m + (1 - B1) * low
        square = whole(basis @ low, shape) ** 2
        rows = B2 * rows + (1 - B2) * square.sum(1)
        columns = B2 * columns + (1 - B2) * square.sum(0)
        root = (torch.outer(rows, columns) / rows.sum()).sqrt()
        correction = math.sqrt(1 - B2**t)
        back = whole(basis @ m, shape) / (1 - B1**steps_since_reset)
        if convention == "torch":
            expected = (1 - 0.1 * 0.1) * expected - 0.1 * back / (root / correction + eps)
        else:
            expected = (1 - 0.1 * 0.1) * (expected - 0.1 * correction * back / (root + eps))
        assert close(param, expected, 1e-11)


@pytest.mark.parametrize(
    ("c", "rank"),
    [
        (4, 3),
        pytest.param(1, 4, marks=pytest.mark.slow),
        pytest.param(4, 1, marks=pytest.mark.slow),
        pytest.param(0.5, 8, marks=pytest.mark.slow),
    ],
)
def test_granular_projections_are_unbiased_and_as_long_as_theorem_1_says(
    c: float, rank: int
) -> None:
    """G (n, m): E G_o = G and E ||G_o||^2 = (m + c + M) / M ||G||^2, M = c r. 1,000 draws, 5 standard deviations."""
    n, m, count, budget = 16, 16, 1000, c * rank
    grad, param = gradients(1, n, m)[0], nn.Parameter(torch.zeros(n, m, dtype=F64))
    options = {"rule": "sgd", "scale": 1.0, "projector": "normal", "interval_steps": 1}
    optimizer = ProjectedAdam([param], 1.0, rank=rank, granularity=c, **options)
    moves = []
    for _ in range(count):
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        moves.append(before - param.detach())
    projected = torch.stack(moves)
    ratio = projected.square().sum((1, 2)) / grad.square().sum()
    expected = (m + c + budget) / budget
    deviation = ratio.std() / math.sqrt(count)
    assert abs(ratio.mean() - expected) < 5 * deviation
    assert deviation < 0.1 * expected
    bias = (projected.mean(0) - grad).abs()
    assert (bias < 5 * projected.std(0) / math.sqrt(count)).all()


@pytest.mark.parametrize("shape", [(16, 32), (32, 16)])
def test_a_budget_costs_the_same_at_every_granularity(shape: tuple[int, int]) -> None:
    for c, rank in ((1, 8), (2, 4), (8, 1), (0.5, 16)):
        param = nn.Parameter(torch.empty(shape, device="meta"))
        optimizer = ProjFactor([param], rank=rank, granularity=c)
        optimizer.allocate()
        tensors = [value for value in optimizer.state[param].values() if torch.is_tensor(value)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        assert size == 4 * (32 * 8 + 16 + 32)


@both_shapes
def test_projfactor_is_adam_where_factors_are_exact(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P orthogonal and fixed, |G_t| = a_t u v^T: the factored second moment is the whole one."""
    basis = torch.linalg.qr(gradients(1, 6, 6)[0])[0]
    monkeypatch.setattr(projectors, "draw", lambda *_: basis)
    u, v = (gradients(1, size, seed=size)[0].abs() + 0.1 for size in shape)
    signs = [grad.sign() for grad in gradients(6, *shape)]
    grads = [(t + 1.5) * torch.outer(u, v) * sign for t, sign in enumerate(signs)]
    start = torch.zeros(shape, dtype=F64)
    ours, _ = optimize(ProjFactor, start, grads, rank=6, eps=0.0)
    theirs, _ = optimize(torch.optim.Adam, start, grads, eps=0.0)
    assert close(ours, theirs, 1e-12)


@pytest.mark.parametrize(
    ("cls", "options"), [(ProjFactor, {"betas": (0.0, 0.999)}), (Flora, {"momentum": 0.0})]
)
def test_without_momentum_a_gradient_of_zeros_moves_nothing(cls: type, options: dict) -> None:
    grad, start = gradients(1, 6, 10)[0], torch.zeros(6, 10, dtype=F64)
    first, _ = optimize(cls, start, [grad], rank=3, **options)
    both, _ = optimize(cls, start, [grad, 0 * grad], rank=3, **options)
    assert torch.equal(both, first)
    assert (first != 0).all()
