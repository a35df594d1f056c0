"""Every other optimizer against its formulas, written out in float64; and what all of them share."""

import copy
import inspect
import io
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import rankwise.optim
from rankwise.optim import AdaLomo, Apollo, Fira, Flora, LDAdam, Lomo, ProjectedAdam, ProjFactor, TopR, projectors

F64 = torch.float64
B1, B2 = 0.9, 0.999


def close(one: Tensor, other: Tensor, atol: float = 1e-12) -> bool:
    return torch.allclose(one, other, rtol=atol, atol=atol)


def gradients(count: int, *shape: int, seed: int = 7, dtype: torch.dtype = F64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]


def optimize(cls: type, weight: Tensor, grads: list[Tensor], lr: float = 0.1, **options) -> tuple[nn.Parameter, dict]:
    param = nn.Parameter(weight.clone())
    optimizer = cls([param], lr, **options)
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param, optimizer.state[param]


def short(matrix: Tensor) -> Tensor:
    """As (s, L), and back."""
    return matrix if matrix.shape[0] < matrix.shape[1] else matrix.mT


def adam(m: Tensor, v: Tensor, grad: Tensor, t: int, eps: float, betas: tuple[float, float] = (B1, B2)) -> Tensor:
    """In the convention of the authors' codes: eps before the correction."""
    m.copy_(betas[0] * m + (1 - betas[0]) * grad)
    v.copy_(betas[1] * v + (1 - betas[1]) * grad**2)
    return math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * m / (v.sqrt() + eps)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What was drawn, in order."""
    seen, draw = [], projectors.draw
    monkeypatch.setattr(projectors, "draw", lambda *arguments: seen.append(draw(*arguments)) or seen[-1])
    return seen


# Fira -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", ["paper", "published"])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_fira_is_its_equations(shape: tuple[int, int], residual: str) -> None:
    """W <- W - lr [a P N + S], S = phi (G - P R), phi_j = ||N_j|| / ||R_j||, ||S|| <= 1.01 its last; theirs subtracts a P R."""
    alpha, lr, last, expected = 0.25, 0.1, 0.0, torch.ones(shape, dtype=F64)
    param = nn.Parameter(torch.ones(shape, dtype=F64))
    optimizer = Fira([param], lr, rank=3, scale=alpha, residual=residual, interval_steps=3, weight_decay=0.1)
    m, v, held = torch.zeros(3, 10, dtype=F64), torch.zeros(3, 10, dtype=F64), []
    grads = gradients(6, *shape)
    for t, grad in enumerate([*grads[:2], 5 * grads[2], 5 * grads[3], *grads[4:]], start=1):
        param.grad = grad.clone()
        optimizer.step()
        g, basis = short(grad), optimizer.state[param]["basis"].clone()
        low = basis.mT @ g
        n = adam(m, v, low, t, 1e-6)
        phi = n.norm(dim=0) / low.norm(dim=0)
        s = phi * (g - (alpha if residual == "published" else 1.0) * basis @ low)
        held.append(t > 1 and s.norm().item() > 1.01 * last)
        s = s * (1.01 * last / s.norm()) if held[-1] else s
        last = s.norm().item()
        update = alpha * basis @ n + s
        expected = (1 - lr * 0.1) * (expected - lr * (update if shape[0] < shape[1] else update.mT))
        assert close(param, expected, 1e-7)  # phi's 1e-8 beside ||R_j||
    assert True in held[1:]
    assert False in held[1:]


def test_fira_at_full_rank_is_the_projection() -> None:
    """P P'G + (G - P P'G) = G: nothing is left over, so the step is the projected Adam's. Published, 1 - a of G is."""
    grads, options = gradients(5, 6, 10), {"rank": 6, "interval_steps": 2, "convention": "transformers", "eps": 1e-6}
    ours, _ = optimize(Fira, torch.zeros(6, 10, dtype=F64), grads, scale=1.0, **options)
    plain, _ = optimize(ProjectedAdam, torch.zeros(6, 10, dtype=F64), grads, scale=1.0, **options)
    assert close(ours, plain, 1e-12)
    kept, _ = optimize(Fira, torch.zeros(6, 10, dtype=F64), grads[:1], scale=0.25, residual="published", **options)
    paper, state = optimize(Fira, torch.zeros(6, 10, dtype=F64), grads[:1], scale=0.25, **options)
    low = state["basis"].mT @ grads[0]
    n = low / (low.abs() + 1e-6 / math.sqrt(1 - B2))
    assert close((paper - kept) / 0.1, n.norm(dim=0) / low.norm(dim=0) * 0.75 * grads[0], 1e-7)


def test_firas_residual_grows_by_a_hundredth_at_most() -> None:
    """The residual is what of a step lies outside the basis."""
    param = nn.Parameter(torch.zeros(6, 10, dtype=F64))
    optimizer, norms = Fira([param], 0.1, rank=2), []
    for t, grad in enumerate(gradients(12, 6, 10)):
        before = param.detach().clone()
        param.grad = grad * 1.5**t
        optimizer.step()
        basis, moved = optimizer.state[param]["basis"], (before - param.detach()) / 0.1
        norms.append((moved - basis @ (basis.mT @ moved)).norm().item())
    ratios = [b / a for a, b in itertools.pairwise(norms)]
    assert max(ratios) <= 1.01 + 1e-9
    assert max(ratios) > 1.0099


# APOLLO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["channel", "tensor"])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_apollo_is_its_equations(shape: tuple[int, int], scaling: str, drawn: list[Tensor]) -> None:
    """R = P'G, N = Adam(R), U = G ||N_j|| / ||R_j|| limited to 1.01, W <- W - lr sqrt(scale) U; P is drawn, not kept."""
    lr, scale, rank, last, expected = 0.1, 4.0, 1 if scaling == "tensor" else 3, 0.0, torch.ones(shape, dtype=F64)
    param = nn.Parameter(torch.ones(shape, dtype=F64))
    optimizer = Apollo([param], lr, rank=rank, scaling=scaling, scale=scale, interval_steps=3, weight_decay=0.1)
    m, v, used = torch.zeros(rank, 10, dtype=F64), torch.zeros(rank, 10, dtype=F64), []
    for t, grad in enumerate(gradients(6, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        used.append(drawn[-1])
        g = short(grad)
        low = used[-1].mT @ g
        n = adam(m, v, low, t, 1e-6)
        over = 0 if scaling == "channel" else (0, 1)
        update = g * (torch.linalg.vector_norm(n, dim=over) / torch.linalg.vector_norm(low, dim=over))
        update = update * min(1.0, 1.01 * last / update.norm().item()) if t > 1 else update
        last = update.norm().item()
        update = math.sqrt(scale) * (update if shape[0] < shape[1] else update.mT)
        expected = (1 - lr * 0.1) * (expected - lr * update)
        assert close(param, expected, 1e-6)  # 1e-8 beside ||R_j||, which for r = 1 may be small
    assert [torch.equal(used[0], p) for p in used] == [True] * 3 + [False] * 3
    assert "basis" not in optimizer.state[param]


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_apollo_in_the_whole_space_has_adams_channel_norms(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projectors, "draw", lambda kind, size, rank, generator, like: torch.eye(size, rank, dtype=like.dtype))
    ours, theirs = nn.Parameter(torch.zeros(shape, dtype=F64)), nn.Parameter(torch.zeros(shape, dtype=F64))
    apollo = Apollo([ours], 0.1, rank=6, limit=math.inf, convention="torch", eps=1e-8)
    adam_ = torch.optim.Adam([theirs], 0.1)
    for grad in gradients(4, *shape):
        before = ours.detach().clone(), theirs.detach().clone()
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        apollo.step()
        adam_.step()
        moved, expected = (short(p.detach() - b) for p, b in zip((ours, theirs), before, strict=True))
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
    one, same, other = (optimize(cls, torch.zeros(6, 10, dtype=F64), grads, rank=2, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not close(one, other, 1e-3)


# Flora ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_flora_is_its_equations(shape: tuple[int, int], drawn: list[Tensor]) -> None:
    """U = G / sqrt(v), root mean square at most 1; M <- b M + (1 - b) P'U; carried over by P_new'P when P is drawn anew."""
    param, expected, used = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64), []
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
    assert [torch.equal(a, b) for a, b in itertools.pairwise(used)] == [True, True, False, True, True, False]


# ProjFactor -----------------------------------------------------------------------------------------------------------


def pieces(matrix: Tensor, c: float) -> Tensor:
    """VLoRP's reshape, as (s, L): rows of a tall matrix are cut in c, c rows of a wide one are joined."""
    m, n = matrix.shape
    return matrix.reshape(round(m * c), round(n / c)).mT if m >= n else matrix.reshape(round(m / c), round(n * c))


def whole(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    return (matrix.mT if shape[0] >= shape[1] else matrix).reshape(shape)


@pytest.mark.parametrize("convention", ["torch", "transformers"])
@pytest.mark.parametrize("transport", ["none", "reset", "project"])
@pytest.mark.parametrize(("shape", "c"), [((8, 12), 1), ((12, 8), 4), ((8, 12), 2), ((12, 8), 0.5)])
def test_projfactor_is_its_equations(shape, c: float, transport: str, convention: str, drawn: list[Tensor]) -> None:
    """M <- b1 M + (1 - b1) P'G, v_r, v_c sums of (P P'G)^2, W <- W - lr sqrt(1 - b2^t) / (1 - b1^t) P M / (sqrt(v) + eps)."""
    eps, used, t_low = 1e-2, [], 0
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    options = {"transport": transport, "convention": convention, "eps": eps, "weight_decay": 0.1, "interval_steps": 3}
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
        rows, columns = B2 * rows + (1 - B2) * square.sum(1), B2 * columns + (1 - B2) * square.sum(0)
        root, second = (torch.outer(rows, columns) / rows.sum()).sqrt(), math.sqrt(1 - B2**t)
        back = whole(used[-1] @ m, shape) / (1 - B1**t_low)
        if convention == "torch":
            expected = (1 - 0.1 * 0.1) * expected - 0.1 * back / (root / second + eps)
        else:
            expected = (1 - 0.1 * 0.1) * (expected - 0.1 * second * back / (root + eps))
        assert close(param, expected, 1e-11)


@pytest.mark.parametrize(("c", "rank"), [(1, 4), (4, 1), (4, 3), (0.5, 8)])
def test_granular_projections_are_unbiased_and_as_long_as_theorem_1_says(c: float, rank: int) -> None:
    """G (n, m): E G_o = G and E ||G_o||^2 = (m + c + M) / M ||G||^2, M = c r. 1,000 draws, 5 standard deviations."""
    n, m, count, budget = 16, 16, 1000, c * rank
    grad, param = gradients(1, n, m)[0], nn.Parameter(torch.zeros(n, m, dtype=F64))
    options = {"rule": "sgd", "scale": 1.0, "projector": "normal", "granularity": c, "interval_steps": 1}
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
        sizes.append(sum(x.numel() * x.element_size() for x in optimizer.state[param].values() if torch.is_tensor(x)))
    assert sizes == [4 * (32 * 8 + 16 + 32)] * 4


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_projfactor_is_adam_where_factors_are_exact(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """P orthogonal and fixed, |G_t| = a_t u v': the factored second moment is the whole one."""
    basis = torch.linalg.qr(gradients(1, 6, 6)[0])[0]
    monkeypatch.setattr(projectors, "draw", lambda *_: basis)
    u, v = (torch.rand(k, generator=torch.Generator().manual_seed(k), dtype=F64) + 0.1 for k in shape)
    grads = [(t + 1.5) * torch.outer(u, v) * g.sign() for t, g in enumerate(gradients(6, *shape))]
    found, _ = optimize(ProjFactor, torch.zeros(shape, dtype=F64), grads, rank=6, eps=0.0)
    theirs = nn.Parameter(torch.zeros(shape, dtype=F64))
    optimizer = torch.optim.Adam([theirs], 0.1, eps=0.0)
    for grad in grads:
        theirs.grad = grad.clone()
        optimizer.step()
    assert close(found, theirs, 1e-12)


@pytest.mark.parametrize(("cls", "options"), [(ProjFactor, {"betas": (0.0, 0.999)}), (Flora, {"momentum": 0.0})])
def test_no_momentum_is_the_gradient_of_the_step(cls: type, options: dict) -> None:
    grads = gradients(2, 6, 10)
    param, _ = optimize(cls, torch.zeros(6, 10, dtype=F64), [grads[0], 0 * grads[1]], rank=3, **options)
    first, _ = optimize(cls, torch.zeros(6, 10, dtype=F64), grads[:1], rank=3, **options)
    assert torch.equal(param, first)
    assert (first != 0).all()


# LDAdam ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_ldadam_is_its_equations(shape: tuple[int, int], feedback: bool) -> None:
    """a = G + E; P spans B B'P_old, B = rho P_old m_hat + (1 - rho) a; moments by Q = P'P_old; E as what was lost of both."""
    b1, b2, rho, eps = 0.908, 0.99, 0.908, 1e-8
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    optimizer = LDAdam([param], 0.1, rank=3, error_feedback=feedback, weight_decay=0.1)
    m, v, error, old = torch.zeros(3, 10, dtype=F64), torch.zeros(3, 10, dtype=F64), torch.zeros(6, 10, dtype=F64), None
    for t, grad in enumerate(gradients(4, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        a, basis = short(grad) + error, optimizer.state[param]["basis"].clone()
        assert close(basis.mT @ basis, torch.eye(3, dtype=F64))
        if t == 1:
            span, stale, carried = torch.linalg.svd(a).U[:, :3], 0, m
        else:
            mean, square = m / (1 - b1 ** (t - 1)), v / (1 - b2 ** (t - 1))
            b = rho * old @ mean + (1 - rho) * a
            span = b @ b.mT @ old
            q, stale = basis.mT @ old, old @ m
            carried = q @ m
            v = (1 - b2 ** (t - 1)) * (q**2 @ (square - mean**2) + (q @ mean) ** 2).abs()
        assert close(basis @ torch.linalg.lstsq(basis, span).solution, span, 1e-10)
        low = basis.mT @ a
        m = b1 * carried + (1 - b1) * low
        v = b2 * v + (1 - b2) * low**2
        step = basis @ (m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + eps))
        if feedback:
            error = a - basis @ low + b1 / (1 - b1) * (stale - basis @ carried)
            assert close(short(optimizer.state[param]["error"]), error, 1e-10)
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * (step if shape[0] < shape[1] else step.mT)
        assert close(param, expected, 1e-10)
        old = basis


def test_ldadam_loses_nothing_at_full_rank() -> None:
    _, state = optimize(LDAdam, torch.zeros(6, 10, dtype=F64), gradients(5, 6, 10), rank=6)
    assert state["error"].abs().max() < 1e-12


# TopR -----------------------------------------------------------------------------------------------------------------


def test_topr_of_everything_is_adamw_bitwise() -> None:
    grads, weight = [g.float() for g in gradients(6, 6, 10)], gradients(1, 6, 10, seed=1)[0].float()
    for options in ({}, {"lazy": True}, {"error_feedback": True}):
        found, _ = optimize(TopR, weight, grads, fraction=1.0, weight_decay=0.1, **options)
        theirs, _ = optimize(torch.optim.AdamW, weight, grads, weight_decay=0.1)
        assert torch.equal(found, theirs)


@pytest.mark.parametrize(("fraction", "kept"), [(0.1, 6), (0.3, 18), (0.5, 30), (0.99, 59), (0.001, 1)])
def test_topr_keeps_the_largest(fraction: float, kept: int) -> None:
    """Exactly k = max(1, floor(fraction numel)): Adam's first moment after a step is a tenth of what was kept."""
    grad = gradients(1, 6, 10)[0]
    _, state = optimize(TopR, torch.zeros(6, 10, dtype=F64), [grad], fraction=fraction)
    chosen = grad.abs() >= grad.abs().flatten().sort(descending=True).values[kept - 1]
    assert chosen.sum() == kept
    assert close(state["exp_avg"], 0.1 * torch.where(chosen, grad, 0.0))
    dropped = grad - 10 * state["exp_avg"]
    assert dropped.square().sum() <= (1 - kept / 60) * grad.square().sum()


def test_topr_keeps_exactly_k_of_equals() -> None:
    _, state = optimize(TopR, torch.zeros(6, 10, dtype=F64), [torch.ones(6, 10, dtype=F64)], fraction=0.25)
    assert (state["exp_avg"] != 0).sum() == 15


@pytest.mark.parametrize(("least", "fraction", "kept"), [(0, 0.1, 0), (0, 0.3, 0), (0, 0.5, 1), (1, 0.1, 1), (2, 0.1, 2)])
def test_topr_as_published_starves_a_tensor_of_two(least: int, fraction: float, kept: int) -> None:
    grad = torch.tensor([0.5, -2.0], dtype=F64)
    found, state = optimize(TopR, torch.zeros(2, dtype=F64), [grad], fraction=fraction, least=least, weight_decay=0.0)
    assert (state["exp_avg"] != 0).sum() == (found != 0).sum() == kept


def test_topr_is_adamw_on_masked_gradients() -> None:
    """Dense moments: entries without a gradient go on by momentum and decay."""
    grads, weight = gradients(6, 6, 10), gradients(1, 6, 10, seed=1)[0]
    masked = [torch.where(g.abs() >= g.abs().flatten().sort(descending=True).values[11], g, 0.0) for g in grads]
    found, _ = optimize(TopR, weight, grads, fraction=0.2, weight_decay=0.1)
    theirs, _ = optimize(torch.optim.AdamW, weight, masked, weight_decay=0.1)
    assert close(found, theirs, 1e-14)


def test_topr_error_feedback_loses_nothing() -> None:
    """The sum of what was kept and the last error is the sum of the gradients; a step keeps the largest of g + e."""
    param, error, kept = nn.Parameter(torch.zeros(6, 10, dtype=F64)), torch.zeros(6, 10, dtype=F64), 0
    optimizer, mean, grads = TopR([param], 0.1, fraction=0.2, error_feedback=True), 0, gradients(8, 6, 10)
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
        state = optimizer.state[param]
        now = 10 * (state["exp_avg"] - 0.9 * mean)
        assert close(now + state["error"], grad + error, 1e-12)
        assert (state["error"] == 0).sum() == 12
        assert now.abs()[state["error"] == 0].min() >= state["error"].abs().max() - 1e-12
        kept, mean, error = kept + now, state["exp_avg"].clone(), state["error"].clone()
    assert close(kept + error, sum(grads), 1e-12)


def test_topr_lazy_moves_kept_entries_only() -> None:
    param = nn.Parameter(torch.ones(6, 10, dtype=F64))
    optimizer = TopR([param], 0.1, fraction=0.2, lazy=True, weight_decay=0.1)
    for grad in gradients(5, 6, 10):
        before, kept = param.detach().clone(), grad.abs() >= grad.abs().flatten().sort(descending=True).values[11]
        param.grad = grad.clone()
        optimizer.step()
        assert torch.equal(param == before, ~kept)


def test_topr_takes_options_by_group() -> None:
    few, all_ = nn.Parameter(torch.zeros(60, dtype=F64)), nn.Parameter(torch.zeros(60, dtype=F64))
    optimizer = TopR([{"params": [few]}, {"params": [all_], "fraction": 1.0}], 0.1, fraction=0.1)
    few.grad = all_.grad = gradients(1, 60)[0]
    optimizer.step()
    assert ((few != 0).sum(), (all_ != 0).sum()) == (6, 60)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_topr_refuses_other_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        TopR([nn.Parameter(torch.zeros(3))], fraction=fraction)


# LOMO, and torch's ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 10), (4, 3, 2), (7,)])
def test_lomo_is_sgd_with_decoupled_decay(shape: tuple[int, ...]) -> None:
    grads, expected = gradients(4, *shape), torch.ones(shape, dtype=F64)
    found, _ = optimize(Lomo, expected, grads, release=False, weight_decay=0.1)
    for grad in grads:
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * grad
    assert close(found, expected, 1e-14)
    plain, _ = optimize(Lomo, expected, grads, release=False)
    theirs, _ = optimize(torch.optim.SGD, expected, grads)
    assert close(plain, theirs, 1e-15)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7,)])
@pytest.mark.parametrize(("clip", "size"), [(1.0, 1.0), (0.5, 1.0), (1.0, 1e-5)])
def test_adalomo_is_its_equations(shape: tuple[int, ...], clip: float, size: float) -> None:
    """v by row and column means with decay 1 - t^-0.8; U / max(1, RMS(U) / clip); rate lr max(1e-3, RMS(W))."""
    grads, expected = gradients(5, *shape), size * gradients(1, *shape, seed=1)[0]
    found, _ = optimize(AdaLomo, expected, grads, release=False, clip=clip, weight_decay=0.1)
    rows = columns = v = 0
    for t, grad in enumerate(grads, start=1):
        decay = 1 - t**-0.8
        if len(shape) == 1:
            v = decay * v + (1 - decay) * grad**2
        else:
            rows = decay * rows + (1 - decay) * (grad**2).mean(1)
            columns = decay * columns + (1 - decay) * (grad**2).mean(0)
            v = torch.outer(rows, columns) / rows.mean()
        update = grad / v.sqrt()
        update = update / max(1.0, (update**2).mean().sqrt().item() / clip)
        rate = 0.1 * max(1e-3, (expected**2).mean().sqrt().item())
        expected = (1 - 0.1 * 0.1) * expected - rate * update
    assert close(found, expected, 1e-12)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7,)])
def test_adalomo_is_torchs_adafactor(shape: tuple[int, ...]) -> None:
    """At a rate below 1 / sqrt(t), which caps torch's."""
    grads, weight = gradients(9, *shape), gradients(1, *shape, seed=1)[0]
    found, _ = optimize(AdaLomo, weight, grads, release=False, weight_decay=0.1)
    theirs, _ = optimize(torch.optim.Adafactor, weight, grads, weight_decay=0.1)
    assert close(found, theirs, 1e-12)


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("AdamW", {"betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1}, {}),
        ("Sgd", {"momentum": 0.9, "weight_decay": 0.1}, {}),
        ("Sgd", {}, {}),
        ("Adafactor", {"beta2_decay": -0.7, "weight_decay": 0.1, "clip": 1.5}, {"clip": "d"}),
    ],
)
def test_torchs_are_torchs_bitwise(name: str, options: dict, theirs: dict) -> None:
    grads, weight = [g.float() for g in gradients(4, 6, 10)], gradients(1, 6, 10, seed=1)[0].float()
    found, _ = optimize(getattr(rankwise.optim, name), weight, grads, **options)
    same, _ = optimize(
        getattr(torch.optim, name.replace("Sgd", "SGD")), weight, grads, **{theirs.get(k, k): o for k, o in options.items()}
    )
    assert torch.equal(found, same)


# All of them ----------------------------------------------------------------------------------------------------------

NAMES = dir(rankwise.optim)
OURS = [
    name for name in NAMES if hasattr(getattr(rankwise.optim, name), "released")
]  # not bitsandbytes', which have no release
VARIANTS = {
    "ProjectedAdam": [
        {"projector": "rsvd", "transport": "project"},
        {"projector": "normal", "scheme": "original"},
        {"projector": "dct", "rule": "factored", "transport": "project"},
        {"rank_rule": "svt", "drift": 0.9},
        {"rule": "sgd", "momentum": 0.9, "random_from_step": 3, "transport": "reset"},
        {"side": "both", "convention": "transformers"},
    ],
    "Fira": [{"projector": "rsvd"}],
    "Apollo": [{"scaling": "tensor"}, {"projector": "svd"}],
    "ProjFactor": [{"projector": "svd", "transport": "project"}, {"granularity": 2.0}],
    "LDAdam": [{"error_feedback": False}],
    "TopR": [{"error_feedback": True}, {"lazy": True, "least": 3}],
    "Sgd": [{"momentum": 0.9}],
}
CASES = [(name, options) for name in OURS for options in ({}, *VARIANTS.get(name, []))]
everyone = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


def make(name: str, params, options: dict, lr: float = 0.05) -> torch.optim.Optimizer:
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters
    fixed = {"rank": 2, "interval_steps": 3, "release": False, "weight_decay": 0.1}
    return cls(params, lr, **{**{k: v for k, v in fixed.items() if k in arguments}, **options})


def net(dtype: torch.dtype = torch.float32) -> nn.ParameterList:
    shapes = [(6, 4), (6, 4), (4, 8), (8,), (8,), (2, 6), (4, 2, 4)]
    return nn.ParameterList(nn.Parameter(w) for i, s in enumerate(shapes) for w in gradients(1, *s, seed=i, dtype=dtype))


def advance(params: nn.ParameterList, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    for step in range(start, stop):
        for index, param in enumerate(params):
            grad = gradients(1, *param.shape, seed=100 * step + index, dtype=torch.float32)[0].to(param.dtype)
            param.grad = grad.clone()
            if step == 2 and index == 1:
                param.grad = None
        optimizer.step()


def test_every_optimizer_is_found_by_name() -> None:
    assert {
        "AdaLomo",
        "Adafactor",
        "AdamW",
        "Apollo",
        "Fira",
        "Flora",
        "LDAdam",
        "Lomo",
        "ProjFactor",
        "ProjectedAdam",
        "Sgd",
    } <= set(OURS)
    assert all(issubclass(getattr(rankwise.optim, name), torch.optim.Optimizer) for name in NAMES)
    with pytest.raises(AttributeError, match=r"it has .*AdaLomo.*TopR"):
        rankwise.optim.Nothing  # noqa: B018


@everyone
def test_parameters_step_as_alone(name: str, options: dict) -> None:
    """In one optimizer, stacked by shape, or each in its own; what has more dimensions is the first by the rest."""
    together, alone = net(F64), net(F64)
    alone[-1] = nn.Parameter(alone[-1].detach().flatten(1))
    one, others = make(name, together.parameters(), options), [make(name, [p], options) for p in alone]
    for step in range(5):
        for index, (param, own) in enumerate(zip(together, alone, strict=True)):
            param.grad = gradients(1, *param.shape, seed=100 * step + index)[0]
            own.grad = param.grad.clone().view_as(own)
        one.step()
        for other in others:
            other.step()
    last = -1 if name == "Adafactor" else None  # torch's factors the last two dimensions
    assert all(close(a.flatten(), b.flatten(), 1e-12) for a, b in list(zip(together, alone, strict=True))[:last])


@everyone
def test_no_gradient_is_modified(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), options)
    for step in range(4):
        grads = [gradients(1, *p.shape, seed=10 * step + i, dtype=torch.float32)[0] for i, p in enumerate(params)]
        given = [g.clone() for g in grads]
        for param, grad in zip(params, given, strict=True):
            param.grad = grad
        optimizer.step()
        assert all(p.grad is g and torch.equal(g, old) for p, g, old in zip(params, given, grads, strict=True))


@everyone
def test_a_resumed_run_is_the_uninterrupted_one(name: str, options: dict) -> None:
    """Bit by bit, from a file that holds tensors and numbers only, stopped within an interval."""
    straight, first, second = net(), net(), net()
    optimizer = make(name, straight.parameters(), options)
    advance(straight, optimizer, 0, 8)
    stopped = make(name, first.parameters(), options)
    advance(first, stopped, 0, 5)
    saved = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": stopped.state_dict()}, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed = make(name, second.parameters(), options)
    resumed.load_state_dict(loaded["optimizer"])
    advance(second, resumed, 5, 8)
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))
    advance(first, stopped, 5, 8)  # what was saved was not moved by the run that was made of it
    assert all(torch.equal(a, b) for a, b in zip(straight, first, strict=True))
    first.load_state_dict(loaded["model"])  # and back, in an optimizer that has gone on
    stopped.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True)["optimizer"])
    advance(first, stopped, 5, 8)
    assert all(torch.equal(a, b) for a, b in zip(straight, first, strict=True))


@everyone
def test_a_loaded_state_keeps_its_dtypes(name: str, options: dict) -> None:
    params = net(torch.bfloat16)
    optimizer = make(name, params.parameters(), options)
    advance(params, optimizer, 0, 3)
    kinds = [{k: v.dtype for k, v in optimizer.state[p].items() if torch.is_tensor(v)} for p in params]
    assert {v for kept in kinds for k, v in kept.items() if k != "step"} <= {torch.bfloat16, torch.int32}
    assert all(p.isfinite().all() for p in params)
    other = make(name, params.parameters(), options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(params, other, 3, 4)
    assert [{k: v.dtype for k, v in other.state[p].items() if torch.is_tensor(v)} for p in params] == kinds


@everyone
def test_a_copy_is_the_same_optimizer(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), options)
    advance(params, optimizer, 0, 4)
    twin, twins = copy.deepcopy((params, optimizer))
    still = [p.detach().clone() for p in params]
    advance(twin, twins, 4, 7)
    assert all(torch.equal(a, b) for a, b in zip(params, still, strict=True))
    advance(params, optimizer, 4, 7)
    assert all(torch.equal(a, b) for a, b in zip(params, twin, strict=True))


@everyone
def test_a_gradient_of_zeros_is_no_number_to_fear(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), {**options, "weight_decay": 0.0})
    before = [p.detach().clone() for p in params]
    for _ in range(2):
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    advance(params, optimizer, 0, 2)
    assert all(p.isfinite().all() and not torch.equal(p, b) for p, b in zip(params, before, strict=True))


@everyone
def test_state_is_the_formula(name: str, options: dict) -> None:
    """Numbers kept, on meta where there is `allocate` and after a step: as `formula` and VECTOR say."""
    cls = getattr(rankwise.optim, name)
    values = {k: p.default for k, p in inspect.signature(cls).parameters.items() if p.default is not p.empty}
    values |= {"rank": 2, **options}
    given = {k: v for k, v in values.items() if k not in ("params", "lr", "release")}
    shapes = [(6, 10), (10, 6), (8, 8), (4, 3, 2), (7,)]
    params = [nn.Parameter(torch.zeros(s)) for s in shapes]
    optimizer = make(name, params, options)
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer.step()
    planned = make(name, [nn.Parameter(p.to("meta")) for p in params], options)
    if hasattr(planned, "allocate"):
        planned.allocate()
    for shape, param, meta in zip(shapes, params, planned.param_groups[0]["params"], strict=True):
        if name == "Adafactor" and len(shape) == 3:
            continue  # torch factors the last two dimensions
        names = {"k": shape[0]}
        if len(shape) > 1:
            m, n = shape[0], math.prod(shape[1:])
            c = options.get("granularity", 1)
            s, large = (n / c, m * c) if m >= n else (m / c, n * c)
            s, large = (max(m, n), min(m, n)) if options.get("side") == "both" else (s, large)
            names = {"m": m, "n": n, "s": s, "L": large, "r": min(2, s, large)}
        expected = eval(cls.formula(**given) if len(shape) > 1 else cls.VECTOR, {}, {**values, **names})
        found = [
            sum(v.numel() for v in o.state[p].values() if torch.is_tensor(v)) for o, p in ((optimizer, param), (planned, meta))
        ]
        assert found[0] == expected, shape
        if hasattr(planned, "allocate"):
            assert found[1] == expected, shape
