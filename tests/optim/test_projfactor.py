"""ProjFactor, against its equations; and VLoRP's projections, which are unbiased at every granularity."""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, close, gradients, optimize
from rankwise.optim import ProjectedAdam, ProjFactor
from rankwise.optim.parts import projectors

both_shapes = pytest.mark.parametrize("shape", [(6, 10), (10, 6)])


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


def test_without_momentum_a_gradient_of_zeros_moves_nothing() -> None:
    grad, start = gradients(1, 6, 10)[0], torch.zeros(6, 10, dtype=F64)
    options = {"rank": 3, "betas": (0.0, 0.999)}
    first, _ = optimize(ProjFactor, start, [grad], **options)
    both, _ = optimize(ProjFactor, start, [grad, 0 * grad], **options)
    assert torch.equal(both, first)
    assert (first != 0).all()


def test_the_seed_decides_the_projection() -> None:
    grads, start = gradients(2, 6, 10), torch.zeros(6, 10, dtype=F64)
    one, same, other = (
        optimize(ProjFactor, start, grads, rank=2, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not close(one, other, 1e-3)


@pytest.mark.parametrize(("moments", "bytes_per_entry"), [("fp32", 2 + 4), ("weight", 2 + 2)])
def test_dense_groups_keep_the_second_moment_in_the_chosen_dtype(
    moments: str, bytes_per_entry: int
) -> None:
    start = torch.linspace(-1, 1, 40).reshape(5, 8)
    grads = [grad.bfloat16() for grad in gradients(4, 5, 8, dtype=torch.float32)]
    ours, theirs = (nn.Parameter(start.bfloat16()) for _ in range(2))
    options = {"rank": 2, "convention": "torch", "eps": 1e-8, "dense_moments": moments}
    optimizer = ProjFactor([{"params": [ours], "dense": True}], lr=0.1, **options)
    reference = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.0, foreach=False)
    for grad in grads:
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        optimizer.step()
        reference.step()
    state = optimizer.state[ours].values()
    tensors = [value for value in state if torch.is_tensor(value) and value.numel() == 40]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert size == 40 * bytes_per_entry
    # bf16 has 8 bits: two roundings of a step of 0.1 beside a weight of 1.
    assert (ours - theirs).abs().max() <= 2**-6
    assert (ours - start).abs().max() > 0.1
