"""Optimizers whose basis is drawn from a seed, against their formulas: APOLLO, Flora and ProjFactor."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, adam, close, gradients, optimize, short
from rankwise.optim import Apollo, Flora, ProjectedAdam, ProjFactor
from rankwise.optim.parts import projectors


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What was drawn, in order."""
    seen, draw = [], projectors.draw
    monkeypatch.setattr(
        projectors, "draw", lambda *arguments: seen.append(draw(*arguments)) or seen[-1]
    )
    return seen


# APOLLO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["channel", "tensor"])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_apollo_is_its_equations(shape: tuple[int, int], scaling: str, drawn: list[Tensor]) -> None:
    """R = P'G, N = Adam(R), U = G ||N_j|| / ||R_j|| limited to 1.01, W <- W - lr sqrt(scale) U; P is drawn, not kept."""
    lr, scale, rank, last, expected = (
        0.1,
        4.0,
        1 if scaling == "tensor" else 3,
        0.0,
        torch.ones(shape, dtype=F64),
    )
    param = nn.Parameter(torch.ones(shape, dtype=F64))
    optimizer = Apollo(
        [param], lr, rank=rank, scaling=scaling, scale=scale, interval_steps=3, weight_decay=0.1
    )
    m, v, used = torch.zeros(rank, 10, dtype=F64), torch.zeros(rank, 10, dtype=F64), []
    for t, grad in enumerate(gradients(6, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        used.append(drawn[-1])
        g = short(grad)
        low = used[-1].mT @ g
        n = adam(m, v, low, t, 1e-6, "transformers")
        over = 0 if scaling == "channel" else (0, 1)
        update = g * (
            torch.linalg.vector_norm(n, dim=over) / torch.linalg.vector_norm(low, dim=over)
        )
        update = update * min(1.0, 1.01 * last / update.norm().item()) if t > 1 else update
        last = update.norm().item()
        update = math.sqrt(scale) * (update if shape[0] < shape[1] else update.mT)
        expected = (1 - lr * 0.1) * (expected - lr * update)
        assert close(param, expected, 1e-6)  # 1e-8 beside ||R_j||, which for r = 1 may be small
    assert [torch.equal(used[0], p) for p in used] == [True] * 3 + [False] * 3
    assert "basis" not in optimizer.state[param]


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_apollo_in_the_whole_space_has_adams_channel_norms(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        projectors,
        "draw",
        lambda kind, size, rank, generator, like: torch.eye(size, rank, dtype=like.dtype),
    )
    ours, theirs = (
        nn.Parameter(torch.zeros(shape, dtype=F64)),
        nn.Parameter(torch.zeros(shape, dtype=F64)),
    )
    apollo = Apollo([ours], 0.1, rank=6, limit=math.inf, convention="torch", eps=1e-8)
    adam_ = torch.optim.Adam([theirs], 0.1)
    for grad in gradients(4, *shape):
        before = ours.detach().clone(), theirs.detach().clone()
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        apollo.step()
        adam_.step()
        moved, expected = (
            short(p.detach() - b) for p, b in zip((ours, theirs), before, strict=True)
        )
        assert close(moved.norm(dim=0), expected.norm(dim=0), 1e-7)
        assert close(moved / moved.norm(dim=0), -short(grad) / short(grad).norm(dim=0), 1e-10)


def test_apollo_minis_step_is_along_the_gradient() -> None:
    param = nn.Parameter(torch.zeros(6, 10, dtype=F64))
    optimizer = Apollo([param], 0.1, rank=1, scaling="tensor", scale=128.0)
    for grad in gradients(4, 6, 10):
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        cosine = torch.cosine_similarity((before - param.detach()).flatten(), grad.flatten(), dim=0)
        assert cosine.item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("cls", [Apollo, Flora, ProjFactor])
def test_the_seed_decides_the_projection(cls: type) -> None:
    grads = gradients(2, 6, 10)
    one, same, other = (
        optimize(cls, torch.zeros(6, 10, dtype=F64), grads, rank=2, seed=s)[0] for s in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not close(one, other, 1e-3)


# Flora ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_flora_is_its_equations(shape: tuple[int, int], drawn: list[Tensor]) -> None:
    """U = G / sqrt(v), root mean square at most 1; M <- b M + (1 - b) P'U; carried over by P_new'P when P is drawn anew."""
    param, expected, used = (
        nn.Parameter(torch.ones(shape, dtype=F64)),
        torch.ones(shape, dtype=F64),
        [],
    )
    optimizer = Flora([param], 0.1, rank=3, interval_steps=3, weight_decay=0.1)
    rows, columns, momentum = 0, 0, torch.zeros(3, 10, dtype=F64)
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
        step = used[-1] @ momentum
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * (step if shape[0] < shape[1] else step.mT)
        assert close(param, expected, 1e-12)
    assert [torch.equal(a, b) for a, b in itertools.pairwise(used)] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


# ProjFactor -----------------------------------------------------------------------------------------------------------


def pieces(matrix: Tensor, c: float) -> Tensor:
    """VLoRP's reshape, as (s, L): rows of a tall matrix are cut in c, c rows of a wide one are joined."""
    m, n = matrix.shape
    return (
        matrix.reshape(round(m * c), round(n / c)).mT
        if m >= n
        else matrix.reshape(round(m / c), round(n * c))
    )


def whole(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    return (matrix.mT if shape[0] >= shape[1] else matrix).reshape(shape)


@pytest.mark.parametrize("convention", ["torch", "transformers"])
@pytest.mark.parametrize("transport", ["none", "reset", "project"])
@pytest.mark.parametrize(("shape", "c"), [((8, 12), 1), ((12, 8), 4), ((8, 12), 2), ((12, 8), 0.5)])
def test_projfactor_is_its_equations(
    shape, c: float, transport: str, convention: str, drawn: list[Tensor]
) -> None:
    """M <- b1 M + (1 - b1) P'G, v_r, v_c sums of (P P'G)^2, W <- W - lr sqrt(1 - b2^t) / (1 - b1^t) P M / (sqrt(v) + eps)."""
    eps, used, t_low = 1e-2, [], 0
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    options = {
        "transport": transport,
        "convention": convention,
        "eps": eps,
        "weight_decay": 0.1,
        "interval_steps": 3,
    }
    optimizer = ProjFactor([param], 0.1, rank=2, granularity=c, **options)
    m, rows, columns = 0, 0, 0
    for t, grad in enumerate(gradients(7, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        used.append(drawn[-1])
        assert used[-1].shape == (pieces(grad, c).shape[0], 2)
        if t in (4, 7):
            m = {"none": m, "reset": 0 * m, "project": used[-1].mT @ used[-2] @ m}[transport]
            t_low = 0 if transport == "reset" else t_low
        t_low += 1
        low = used[-1].mT @ pieces(grad, c)
        m = B1 * m + (1 - B1) * low
        square = whole(used[-1] @ low, shape) ** 2
        rows, columns = (
            B2 * rows + (1 - B2) * square.sum(1),
            B2 * columns + (1 - B2) * square.sum(0),
        )
        root, second = (torch.outer(rows, columns) / rows.sum()).sqrt(), math.sqrt(1 - B2**t)
        back = whole(used[-1] @ m, shape) / (1 - B1**t_low)
        if convention == "torch":
            expected = (1 - 0.1 * 0.1) * expected - 0.1 * back / (root / second + eps)
        else:
            expected = (1 - 0.1 * 0.1) * (expected - 0.1 * second * back / (root + eps))
        assert close(param, expected, 1e-11)


@pytest.mark.parametrize(("c", "rank"), [(1, 4), (4, 1), (4, 3), (0.5, 8)])
def test_granular_projections_are_unbiased_and_as_long_as_theorem_1_says(
    c: float, rank: int
) -> None:
    """G (n, m): E G_o = G and E ||G_o||^2 = (m + c + M) / M ||G||^2, M = c r. 1,000 draws, 5 standard deviations."""
    n, m, count, budget = 16, 16, 1000, c * rank
    grad, param = gradients(1, n, m)[0], nn.Parameter(torch.zeros(n, m, dtype=F64))
    options = {
        "rule": "sgd",
        "scale": 1.0,
        "projector": "normal",
        "granularity": c,
        "interval_steps": 1,
    }
    optimizer, found = ProjectedAdam([param], 1.0, rank=rank, **options), []
    for _ in range(count):
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        found.append(before - param.detach())
    stacked, length = torch.stack(found), grad.square().sum()
    ratio = stacked.square().sum((1, 2)) / length
    expected = (m + c + budget) / budget
    assert abs(ratio.mean() - expected) < 5 * ratio.std() / math.sqrt(count)
    assert ratio.std() / math.sqrt(count) < 0.1 * expected
    assert ((stacked.mean(0) - grad).abs() < 5 * stacked.std(0) / math.sqrt(count)).all()


@pytest.mark.parametrize("shape", [(16, 32), (32, 16)])
def test_a_budget_costs_the_same_at_every_granularity(shape: tuple[int, int]) -> None:
    sizes = []
    for c, rank in ((1, 8), (2, 4), (8, 1), (0.5, 16)):
        param = nn.Parameter(torch.empty(shape, device="meta"))
        optimizer = ProjFactor([param], rank=rank, granularity=c)
        optimizer.allocate()
        sizes.append(
            sum(
                x.numel() * x.element_size()
                for x in optimizer.state[param].values()
                if torch.is_tensor(x)
            )
        )
    assert sizes == [4 * (32 * 8 + 16 + 32)] * 4


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_projfactor_is_adam_where_factors_are_exact(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P orthogonal and fixed, |G_t| = a_t u v': the factored second moment is the whole one."""
    basis = torch.linalg.qr(gradients(1, 6, 6)[0])[0]
    monkeypatch.setattr(projectors, "draw", lambda *_: basis)
    u, v = (
        torch.rand(k, generator=torch.Generator().manual_seed(k), dtype=F64) + 0.1 for k in shape
    )
    grads = [(t + 1.5) * torch.outer(u, v) * g.sign() for t, g in enumerate(gradients(6, *shape))]
    found, _ = optimize(ProjFactor, torch.zeros(shape, dtype=F64), grads, rank=6, eps=0.0)
    theirs = nn.Parameter(torch.zeros(shape, dtype=F64))
    optimizer = torch.optim.Adam([theirs], 0.1, eps=0.0)
    for grad in grads:
        theirs.grad = grad.clone()
        optimizer.step()
    assert close(found, theirs, 1e-12)


@pytest.mark.parametrize(
    ("cls", "options"), [(ProjFactor, {"betas": (0.0, 0.999)}), (Flora, {"momentum": 0.0})]
)
def test_no_momentum_is_the_gradient_of_the_step(cls: type, options: dict) -> None:
    grads = gradients(2, 6, 10)
    param, _ = optimize(
        cls, torch.zeros(6, 10, dtype=F64), [grads[0], 0 * grads[1]], rank=3, **options
    )
    first, _ = optimize(cls, torch.zeros(6, 10, dtype=F64), grads[:1], rank=3, **options)
    assert torch.equal(param, first)
    assert (first != 0).all()
