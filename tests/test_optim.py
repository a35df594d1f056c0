"""Projection: ProjectedAdam and its subspaces against their mathematics, and against torch and GaLore where they must agree."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from rankwise.optim import ProjectedAdam, ProjFactor, projectors

F64 = torch.float64
SIDES = ["short", "long", "left", "right", "both"]
PLAIN = {"rule": "sgd", "scale": 1.0, "lr": 1.0}  # W <- W - P P'G
B1, B2 = 0.9, 0.999


def close(one: Tensor, other: Tensor, atol: float = 1e-12) -> bool:
    return torch.allclose(one, other, rtol=atol, atol=atol)


def gradients(count: int, *shape: int, seed: int = 7, dtype: torch.dtype = F64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]


def spectrum(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values."""
    u, v = (
        torch.linalg.qr(g)[0] for g in (*gradients(1, rows, rows, seed=seed), *gradients(1, columns, columns, seed=seed + 1))
    )
    return u[:, : len(values)] * torch.tensor(values, dtype=F64) @ v[:, : len(values)].mT


def optimize(weight: Tensor, grads: list[Tensor | None], **options) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    param = nn.Parameter(weight.clone())
    optimizer = ProjectedAdam([param], **{"lr": 0.1, **options})
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param, optimizer


def moved(grad: Tensor, **options) -> Tensor:
    """By how much one step changes a weight of zeros."""
    return -optimize(torch.zeros_like(grad), [grad], **options)[0].detach()


def seen(matrix: Tensor, side: str, c: float = 1) -> Tensor:
    """G as (s, L), from the words of the papers: cut or join rows, then transpose if columns are what is projected."""
    m, n = matrix.shape
    right = {"right": True, "left": False, "short": m >= n, "long": m < n, "both": m < n}[side]
    return matrix.reshape(round(m * c), round(n / c)).mT if right else matrix.reshape(round(m / c), round(n * c))


def unseen(matrix: Tensor, shape: torch.Size, side: str, c: float = 1) -> Tensor:
    m, n = shape
    right = {"right": True, "left": False, "short": m >= n, "long": m < n, "both": m < n}[side]
    return (matrix.mT if right else matrix).reshape(shape)


def dct_ii(size: int) -> Tensor:
    table = [
        [math.sqrt((1 if k == 0 else 2) / size) * math.cos(math.pi * (2 * i + 1) * k / (2 * size)) for k in range(size)]
        for i in range(size)
    ]
    return torch.tensor(table, dtype=F64)


def bases(state: dict, size: int) -> tuple[Tensor, Tensor | None]:
    if "columns" in state:
        return dct_ii(size)[:, state["columns"].long()], None
    return state["basis"].clone(), state.get("other_basis", torch.empty(0)).clone() if "other_basis" in state else None


def adam(m: Tensor, v: Tensor, grad: Tensor, t: int, eps: float, convention: str = "torch") -> Tensor:
    m.copy_(B1 * m + (1 - B1) * grad)
    v.copy_(B2 * v + (1 - B2) * grad**2)
    if convention == "torch":
        return (m / (1 - B1**t)) / ((v / (1 - B2**t)).sqrt() + eps)
    return math.sqrt(1 - B2**t) / (1 - B1**t) * m / (v.sqrt() + eps)


# The step -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
@pytest.mark.parametrize(("projector", "convention", "decay", "side"), [
    (*case, side)
    for case in (("svd", "torch", 0.1), ("rsvd", "transformers", 0.1), ("dct", "torch", 0.0))
    for side in (SIDES[:-1] if case[0] == "dct" else SIDES)
])  # fmt: skip
def test_steps_are_their_equations(projector: str, convention: str, decay: float, side: str, shape: tuple[int, int]) -> None:
    """R = P'G, moments of R, W <- (1 - lr wd) W - lr alpha P D, over two intervals; the basis found is the leading one."""
    rank, lr, scale, eps, grads = 3, 0.1, 0.5, 1e-3, gradients(5, *shape)
    options = {"rank": rank, "side": side, "projector": projector, "scale": scale, "interval_steps": 3, "eps": eps}
    param = nn.Parameter(gradients(1, *shape, seed=1)[0])
    optimizer = ProjectedAdam([param], lr, **options, oversample=10, convention=convention, weight_decay=decay)
    expected, m, v = param.detach().clone(), None, None
    for t, grad in enumerate(grads, start=1):
        param.grad = grad.clone()
        optimizer.step()
        g = seen(grad, side)
        basis, other = bases(optimizer.state[param], g.shape[0])
        if t in (1, 4):
            left = torch.linalg.svd(g)
            if projector == "dct":
                scores = (dct_ii(g.shape[0]).mT @ g).abs().sum(1)
                assert set(optimizer.state[param]["columns"].tolist()) == set(scores.topk(rank).indices.tolist())
            else:
                assert close(basis @ basis.mT, left.U[:, :rank] @ left.U[:, :rank].mT, atol=1e-9)
            if other is not None:
                assert close(other @ other.mT, left.Vh[:rank].mT @ left.Vh[:rank], atol=1e-9)
        low = basis.mT @ g if other is None else basis.mT @ g @ other
        m, v = (torch.zeros_like(low) if kept is None else kept for kept in (m, v))
        direction = basis @ adam(m, v, low, t, eps, convention)
        direction = unseen(direction if other is None else direction @ other.mT, param.shape, side)
        if convention == "torch":
            expected = (1 - lr * decay) * expected - lr * scale * direction
        else:
            expected = (1 - lr * decay) * (expected - lr * scale * direction)
        assert close(param, expected, atol=1e-12)


@pytest.mark.parametrize("side", ["short", "long", "left", "right"])
@pytest.mark.parametrize("projector", ["normal", "rademacher", "orthonormal"])
def test_steps_with_a_drawn_basis_are_their_equations(projector: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The basis is drawn again at every use, from a seed: the same within an interval, another in the next; none is kept."""
    drawn, draw = [], projectors.draw

    def spy(*arguments) -> Tensor:
        drawn.append(draw(*arguments))
        return drawn[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    param, grads = nn.Parameter(torch.zeros(6, 10, dtype=F64)), gradients(5, 6, 10)
    optimizer = ProjectedAdam([param], 0.1, rank=3, side=side, projector=projector, scale=0.5, interval_steps=2)
    expected, used, m, v = torch.zeros(6, 10, dtype=F64), [], None, None
    for t, grad in enumerate(grads, start=1):
        drawn.clear()
        param.grad = grad.clone()
        optimizer.step()
        assert set(optimizer.state[param]) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(basis, drawn[0]) for basis in drawn)
        used.append(drawn[0])
        low = used[-1].mT @ seen(grad, side)
        m, v = (torch.zeros_like(low) if kept is None else kept for kept in (m, v))
        expected -= 0.1 * 0.5 * unseen(used[-1] @ adam(m, v, low, t, 1e-8), param.shape, side)
        assert close(param, expected, atol=1e-13)
    same = [torch.equal(a, b) for a, b in itertools.pairwise(used)]
    assert same == [True, False, True, False]


def test_a_signed_permutation_as_basis_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam is not rotation-equivariant, so full rank is not Adam; with a signed permutation it is, exactly."""
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    basis = torch.eye(6, dtype=F64)[:, order] * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0], dtype=F64)
    monkeypatch.setattr(projectors, "svd", lambda grads, rank: (basis[None], torch.ones(1, 6, dtype=F64)))
    grads, weight = gradients(8, 6, 10), gradients(1, 6, 10, seed=2)[0]
    found, _ = optimize(weight, grads, rank=6, scale=1.0, weight_decay=0.1, interval_steps=3)
    param = nn.Parameter(weight.clone())
    theirs = torch.optim.AdamW([param], 0.1, weight_decay=0.1)
    for grad in grads:
        param.grad = grad
        theirs.step()
    assert close(found, param, atol=1e-14)


@pytest.mark.parametrize(
    ("momentum", "transport", "fixed"), [(0.0, "none", False), (0.9, "project", False), (0.9, "none", True)]
)
@pytest.mark.parametrize("interval", [1, 3, 100])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_full_rank_sgd_is_torchs(shape, interval, momentum, transport, fixed, monkeypatch: pytest.MonkeyPatch) -> None:
    if fixed:
        basis = torch.linalg.qr(gradients(1, 6, 6, seed=3)[0])[0]
        monkeypatch.setattr(projectors, "svd", lambda grads, rank: (basis[None], torch.ones(1, 6, dtype=F64)))
    grads, weight = gradients(7, *shape), gradients(1, *shape, seed=2)[0]
    found, _ = optimize(
        weight, grads, rank=6, rule="sgd", momentum=momentum, transport=transport, scale=1.0, interval_steps=interval
    )
    param = nn.Parameter(weight.clone())
    theirs = torch.optim.SGD([param], 0.1, momentum=momentum)
    for grad in grads:
        param.grad = grad
        theirs.step()
    assert close(found, param, atol=1e-12)


@pytest.mark.parametrize("projector", ["svd", "rsvd", "dct", "orthonormal"])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 7)])
def test_a_full_basis_loses_nothing(projector: str, shape: tuple[int, int]) -> None:
    grad = gradients(1, *shape)[0]
    assert close(moved(grad, rank=99, projector=projector, **PLAIN), grad, atol=1e-12)


def test_the_projection_error_is_the_spectrums_tail() -> None:
    grad = gradients(1, 20, 30)[0]
    lost = (grad - moved(grad, rank=7, **PLAIN)).square().sum()
    assert close(lost, torch.linalg.svdvals(grad)[7:].square().sum(), atol=1e-11)


@pytest.mark.parametrize("projector", ["svd", "rsvd", "dct", "normal", "rademacher", "orthonormal"])
@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_within_an_interval_the_weight_moves_in_rank_r(projector: str, shape: tuple[int, int]) -> None:
    weight, grads = torch.zeros(shape, dtype=F64), gradients(10, *shape)
    options = {"rank": 3, "projector": projector, "interval_steps": 5}
    assert torch.linalg.matrix_rank(optimize(weight, grads[:5], **options)[0]) == 3
    assert 3 < torch.linalg.matrix_rank(optimize(weight, grads, **options)[0]) <= 6


@pytest.mark.parametrize("convention", ["torch", "transformers"])
def test_vectors_and_dense_groups_step_by_adam(convention: str) -> None:
    """torch's to rounding; the other convention is Adam with eps divided by sqrt(1 - b2^t)."""
    vector, matrix = nn.Parameter(torch.ones(7, dtype=F64)), nn.Parameter(torch.ones(4, 5, dtype=F64))
    groups = [{"params": [vector]}, {"params": [matrix], "dense": True}]
    optimizer = ProjectedAdam(groups, 0.1, rank=2, convention=convention, eps=1e-3, weight_decay=0.1)
    expected = {p: p.detach().clone() for p in (vector, matrix)}
    moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in (vector, matrix)}
    for t, (a, b) in enumerate(zip(gradients(5, 7), gradients(5, 4, 5), strict=True), start=1):
        vector.grad, matrix.grad = a.clone(), b.clone()
        optimizer.step()
        for param, grad in ((vector, a), (matrix, b)):
            direction = adam(*moments[param], grad, t, 1e-3, convention)
            late = 0.99 if convention == "transformers" else 1.0
            expected[param] = late * (expected[param] * (0.99 / late) - 0.1 * direction)
            assert close(param, expected[param], atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_is_galores(shape: tuple[int, int], decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' optimizer over three refreshes. A tall matrix's basis is theirs by its sign too, which is arbitrary."""
    galore = pytest.importorskip("galore_torch")

    def svd(grads: list[Tensor], rank: int) -> tuple[Tensor, Tensor]:
        found = [torch.linalg.svd(g.mT, full_matrices=False) for g in grads]
        return torch.stack([f.Vh[:rank].mT for f in found]), torch.stack([f.S for f in found])

    if shape[0] > shape[1]:
        monkeypatch.setattr(projectors, "svd", svd)
    weight, grads = gradients(1, *shape, seed=2)[0].float(), [g.float() for g in gradients(10, *shape)]
    ours, _ = optimize(
        weight, grads, rank=2, interval_steps=4, scale=0.25, weight_decay=decay, convention="transformers", eps=1e-6
    )
    theirs = nn.Parameter(weight.clone())
    group = {"params": [theirs], "rank": 2, "update_proj_gap": 4, "scale": 0.25, "proj_type": "std"}
    optimizer = galore.GaLoreAdamW([group], lr=0.1, weight_decay=decay, no_deprecation_warning=True)
    for grad in grads:
        theirs.grad = grad.clone()
        optimizer.step()
    assert close(ours, theirs, atol=1e-6)


def test_factored_rule_is_its_equations() -> None:
    """V = v_r v_c' / sum(v_r) of R^2, bias-corrected as Adam's."""
    grads, eps = gradients(4, 6, 10), 1e-3
    param, optimizer = optimize(torch.zeros(6, 10, dtype=F64), grads, rank=3, rule="factored", scale=1.0, eps=eps)
    basis = optimizer.state[param]["basis"]
    m, rows, columns, expected = 0, 0, 0, torch.zeros(6, 10, dtype=F64)
    for t, grad in enumerate(grads, start=1):
        low = basis.mT @ grad
        m = B1 * m + (1 - B1) * low
        rows = B2 * rows + (1 - B2) * (low**2).sum(1)
        columns = B2 * columns + (1 - B2) * (low**2).sum(0)
        v = torch.outer(rows, columns) / rows.sum() / (1 - B2**t)
        expected -= 0.1 * basis @ (m / (1 - B1**t) / (v.sqrt() + eps))
    assert close(param, expected, atol=1e-13)


# When the basis changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projector", ["svd", "rsvd", "dct"])
@pytest.mark.parametrize("interval", [1, 3])
def test_the_basis_changes_at_every_interval(projector: str, interval: int) -> None:
    """Published system A's test, t % T == 1, never refreshes again at T = 1."""
    param, changed = nn.Parameter(torch.zeros(6, 30, dtype=F64)), []
    optimizer = ProjectedAdam([param], rank=2, projector=projector, interval_steps=interval)
    key = "columns" if projector == "dct" else "basis"
    optimizer.allocate()
    for t in range(1, 8):
        old = optimizer.state[param][key].clone()
        signal = torch.zeros(6, 30, dtype=F64)
        chosen = [t % 6, (t + 1) % 6]
        signal[:] = dct_ii(6)[:, chosen] @ gradients(1, 2, 30, seed=t)[0]
        param.grad = signal
        optimizer.step()
        if not torch.equal(old, optimizer.state[param][key]):
            changed.append(t)
    assert changed == [t for t in range(1, 8) if (t - 1) % interval == 0]


@pytest.mark.parametrize(
    ("drift", "changes"), [(0.0, [1]), (0.3, [1, 6]), (0.7, [1, 6]), (0.85, [1, 4, 6]), (0.999, [1, 3, 4, 6])]
)
def test_drift_refreshes_early_and_only_then(drift: float, changes: list[int]) -> None:
    """G = u u' turns away by the cosines of `shares` from its first: a refresh wherever ||P'G|| / ||G|| falls below drift."""
    first, last = torch.eye(8, dtype=F64)[[0, 4]]
    shares = [1.0, 1.0, 0.99, 0.8, 0.8, 0.0]
    steady = nn.Parameter(torch.zeros(8, 8, dtype=F64))
    param = nn.Parameter(torch.zeros(8, 8, dtype=F64))
    optimizer = ProjectedAdam([steady, param], rank=1, interval_steps=1000, drift=drift)
    optimizer.allocate()
    seen_changes, steady_changes = [], []
    for t, share in enumerate(shares, start=1):
        old, old_steady = (optimizer.state[p]["basis"].clone() for p in (param, steady))
        u = share * first + math.sqrt(1 - share**2) * last
        param.grad = torch.outer(u, u)
        steady.grad = torch.outer(first, first)
        optimizer.step()
        seen_changes += [t] * (not torch.equal(old, optimizer.state[param]["basis"]))
        steady_changes += [t] * (not torch.equal(old_steady, optimizer.state[steady]["basis"]))
    assert seen_changes == changes
    assert steady_changes == [1]


@pytest.mark.parametrize("options", [{"drift": 0.99}, {"rank_rule": "energy", "drift": 0.99}, {"rank_rule": "energy"}], ids=str)
def test_a_first_gradient_of_zeros_does_not_hold_the_matrix_still(options: dict) -> None:
    """As that of lora_A is: what comes after moves the weight, with drift in its own subspace at once."""
    grads = [torch.zeros(6, 10, dtype=F64), spectrum([1.0], 6, 10), spectrum([1.0], 6, 10)]
    param, _ = optimize(torch.zeros(6, 10, dtype=F64), grads, rank=2, **options, **PLAIN)
    if "drift" in options:
        assert close(-param, 2 * grads[1], 1e-9)
    assert (param != 0).any()


@pytest.mark.parametrize(("start", "random"), [(1, [1, 3, 5]), (3, [3, 5]), (4, [5]), (None, [])])
def test_from_a_step_on_the_basis_is_random(start: int | None, random: list[int]) -> None:
    """GoLore: a singular basis holds all of a gradient of rank 1, a random one does not; either is orthonormal."""
    param, found = nn.Parameter(torch.zeros(20, 30, dtype=F64)), []
    optimizer = ProjectedAdam([param], rank=2, interval_steps=2, random_from_step=start)
    for t in range(1, 7):
        u, v = gradients(1, 20, 1, seed=t)[0], gradients(1, 30, 1, seed=t)[0]
        param.grad = u @ v.mT
        old = optimizer.state[param].get("basis", torch.zeros(20, 2, dtype=F64)).clone()
        optimizer.step()
        basis = optimizer.state[param]["basis"]
        assert close(basis.mT @ basis, torch.eye(2, dtype=F64), atol=1e-12)
        if t % 2 == 0:
            assert torch.equal(basis, old)
        elif not close(basis @ (basis.mT @ u), u, atol=1e-9):
            found.append(t)
    assert found == random


@pytest.mark.parametrize(
    ("transport", "interval", "cosine"),
    [("none", 2, math.sqrt(16 / 145)), ("none", 1, 0.0), ("project", 1, 16 / 145), ("project", 2, math.sqrt(16 / 145))],
)
def test_what_momentum_is_worth_under_a_new_basis(transport: str, interval: int, cosine: float) -> None:
    """E||P P'u||^2 = (s + r + 1) / r ||u||^2: kept .33 of the cosine, stale none, transported .11. P is (128, 16)."""
    grad, cosines = gradients(1, 128, 160)[0], []
    for seed in range(24):
        param = nn.Parameter(torch.zeros_like(grad))
        options = {"projector": "normal", "transport": transport, "interval_steps": interval, "seed": seed, "momentum": 0.9}
        optimizer = ProjectedAdam([param], rank=16, **PLAIN, **options)
        for gradient in (grad, torch.zeros_like(grad)):
            before = param.detach().clone()
            param.grad = gradient.clone()
            optimizer.step()
        cosines.append(torch.cosine_similarity((before - param).flatten(), grad.flatten(), dim=0))
    assert torch.stack(cosines).mean().item() == pytest.approx(cosine, abs=0.01)


@pytest.mark.parametrize("rule", ["adam", "factored", "sgd"])
def test_a_signed_permutation_of_the_basis_is_transported_exactly(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules are equivariant to it, so with their state carried over nothing changes; without, it does."""
    basis = torch.linalg.qr(gradients(1, 6, 3)[0])[0]
    turned = basis[:, [2, 0, 1]] * torch.tensor([1.0, -1.0, -1.0], dtype=F64)
    results = {}
    for transport, sequence in (("project", [basis, basis]), ("project", [basis, turned]), ("none", [basis, turned])):
        coming = iter(sequence)
        monkeypatch.setattr(projectors, "svd", lambda g, r, coming=coming: (next(coming)[None], torch.ones(1, 3, dtype=F64)))
        options = {"rank": 3, "rule": rule, "momentum": 0.9, "transport": transport, "interval_steps": 3}
        results[transport, sequence[1] is turned] = optimize(torch.zeros(6, 10, dtype=F64), gradients(5, 6, 10), **options)[0]
    assert close(results["project", False], results["project", True], atol=1e-12)
    assert not close(results["project", False], results["none", True], atol=1e-3)


@pytest.mark.parametrize(
    ("projector", "shape"), [("svd", (6, 10)), ("svd", (10, 6)), ("dct", (6, 10)), ("orthonormal", (6, 10))]
)
def test_transport_is_ldadams_rule(projector: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Q = P_new'P: M <- Q M, v <- (1 - b2^t) |Q^2 (v_hat - m_hat^2) + (Q m_hat)^2| after t steps in the old basis."""
    drawn, draw = [], projectors.draw
    monkeypatch.setattr(projectors, "draw", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    param, old, expected = nn.Parameter(torch.zeros(shape, dtype=F64)), None, torch.zeros(shape, dtype=F64)
    optimizer = ProjectedAdam([param], 0.1, rank=3, projector=projector, transport="project", interval_steps=2, scale=1.0)
    m = v = torch.zeros(3, 10, dtype=F64)
    for t, grad in enumerate(gradients(6, *shape), start=1):
        if projector == "dct":  # other columns in each interval
            grad[:] = dct_ii(6) @ (torch.eye(6, dtype=F64)[t // 2] * 9 + 1).diag() @ grad
        param.grad = grad.clone()
        optimizer.step()
        basis = drawn[-1] if projector == "orthonormal" else bases(optimizer.state[param], 6)[0]
        if t in (3, 5):
            q, mean, square = basis.mT @ old, m / (1 - B1 ** (t - 1)), v / (1 - B2 ** (t - 1))
            assert not close(q, torch.eye(3, dtype=F64), atol=1e-3)
            m, v = q @ m, (1 - B2 ** (t - 1)) * ((q**2) @ (square - mean**2) + (q @ mean) ** 2).abs()
        old, m, v = basis, m.clone(), v.clone()
        expected = expected - 0.1 * unseen(basis @ adam(m, v, basis.mT @ seen(grad, "short"), t, 1e-8), param.shape, "short")
        assert close(param, expected, atol=1e-11)


@pytest.mark.parametrize("projector", ["svd", "rsvd", "dct", "normal"])
def test_reset_begins_anew_at_every_interval(projector: str) -> None:
    """With moments and step count zeroed, each interval is an optimizer's first (where bases do not depend on the step)."""
    grads, options = gradients(6, 6, 10), {"rank": 3, "projector": projector, "interval_steps": 3, "transport": "reset"}
    whole, optimizer = optimize(torch.zeros(6, 10, dtype=F64), grads, **options)
    assert optimizer.state[whole]["step"] == 6
    first, _ = optimize(torch.zeros(6, 10, dtype=F64), grads[:3], **options)
    second, _ = optimize(first.detach(), grads[3:], **options)
    kept, _ = optimize(torch.zeros(6, 10, dtype=F64), grads, **{**options, "transport": "none"})
    assert not close(whole, kept, atol=1e-3)
    if projector in ("svd", "dct"):
        assert close(whole, second, atol=1e-13)


# Bases ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projector", ["normal", "rademacher", "orthonormal"])
def test_drawn_bases_have_their_law(projector: str) -> None:
    """Gradient I at each of 800 redraws: the mean of P P' is I, or (r/s) I, to 5 of its standard deviations."""
    size, rank, count = 6, 3, 800
    param = nn.Parameter(torch.zeros(size, size, dtype=F64))
    optimizer = ProjectedAdam([param], rank=rank, projector=projector, interval_steps=1, **PLAIN)
    eye, one = torch.eye(size, dtype=F64), []
    for _ in range(count):
        before = param.detach().clone()
        param.grad = eye.clone()
        optimizer.step()
        one.append(before - param.detach())
    mean, middle = torch.stack(one).mean(0), rank / size if projector == "orthonormal" else 1.0
    spread = {"normal": 2 / rank, "rademacher": 1 / rank, "orthonormal": 0.25}[projector] ** 0.5  # of one entry, at most
    assert (mean - middle * eye).abs().max() < 5 * spread / math.sqrt(count)
    if projector == "rademacher":
        assert close(mean.diagonal(), torch.ones(size, dtype=F64), atol=1e-9)
    if projector == "orthonormal":  # P P' is a projection onto r dimensions
        stacked = torch.stack(one)
        assert close(stacked @ stacked, stacked, atol=1e-9)
        assert close(stacked.diagonal(dim1=1, dim2=2).sum(1), torch.full((count,), float(rank), dtype=F64))


@pytest.mark.parametrize("projector", ["rsvd", "normal", "rademacher", "orthonormal"])
def test_the_seed_decides_the_draw(projector: str) -> None:
    grad = gradients(1, 30, 40)[0]
    one, same, other = (moved(grad, rank=4, projector=projector, power_iterations=0, seed=s, **PLAIN) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not close(one, other, atol=1e-3)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)])
def test_the_randomized_basis_is_the_svds_where_the_spectrum_falls(shape: tuple[int, int]) -> None:
    grad = spectrum([10, 9, 8, 7, 6, 5] + [1e-4] * 50, *shape)
    exact, found = (moved(grad, rank=6, projector=p, **PLAIN) for p in ("svd", "rsvd"))
    assert torch.linalg.matrix_norm(exact - found, ord=2) < 1e-6


@pytest.mark.parametrize("power_iterations", [0, 1])
def test_the_randomized_basis_is_exact_up_to_its_rank(power_iterations: int) -> None:
    grad = spectrum([3, 2, 1, 0.5], 40, 30)
    found = moved(grad, rank=5, projector="rsvd", power_iterations=power_iterations, **PLAIN)
    assert close(found, grad, atol=1e-12)


def test_a_wider_sketch_loses_less() -> None:
    """sketch_factor 2 is published system A's 2 r + 4; mean over sketches, against the SVD's loss, which is the least."""
    grad, losses = gradients(1, 60, 80)[0], {}
    for factor in (1, 2, 6):
        options = {"projector": "rsvd", "oversample": 0, "sketch_factor": factor, "power_iterations": 0}
        found = [moved(grad, rank=8, seed=seed, **options, **PLAIN) for seed in range(8)]
        losses[factor] = torch.stack([(grad - f).square().sum() for f in found]).mean()
    least = (grad - moved(grad, rank=8, **PLAIN)).square().sum()
    assert losses[1] > losses[2] > losses[6] > least * (1 - 1e-12)


@pytest.mark.parametrize("shape", [(4, 3, 5), (6, 2, 1), (3, 2, 2, 2)])
@pytest.mark.parametrize(
    "options", [{}, {"rule": "sgd"}, {"scheme": "original"}, {"side": "left", "projector": "normal"}], ids=str
)
def test_more_dimensions_are_the_first_by_the_rest(shape: tuple[int, ...], options: dict) -> None:
    grads = gradients(4, *shape)
    whole, _ = optimize(torch.ones(shape, dtype=F64), grads, rank=2, interval_steps=2, **options)
    flat, _ = optimize(
        torch.ones(shape, dtype=F64).flatten(1), [g.flatten(1) for g in grads], rank=2, interval_steps=2, **options
    )
    assert torch.equal(whole.flatten(1), flat)


# Ranks ----------------------------------------------------------------------------------------------------------------


def allocated_rank(shape: tuple[int, int], **options) -> int:
    param = nn.Parameter(torch.empty(shape, device="meta"))
    optimizer = ProjectedAdam([param], **options)
    optimizer.allocate()
    return optimizer.state[param]["basis"].shape[1]


@pytest.mark.parametrize(
    ("shape", "rank", "expected"), [((768, 768), 16, 16), ((30, 7), 16, 7), ((7, 30), 16, 7), ((2, 768), 4, 2), ((5, 5), 1, 1)]
)
def test_a_fixed_rank_is_capped_by_the_matrix(shape: tuple[int, int], rank: int, expected: int) -> None:
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
    found = [allocated_rank(shape, rank=r, rank_rule="proportional", side="left") for r in (4, 8, 16, 64, 128)]
    assert found == expected


@pytest.mark.parametrize(("percent", "expected"), [(1, 7), (5, 38), (10, 76), (25, 192), (50, 384), (100, 768)])
def test_a_rank_in_percent_is_the_published_fraction(percent: int, expected: int) -> None:
    assert allocated_rank((768, 1000), rank=percent, rank_rule="percent") == expected


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
def test_the_energy_rule_keeps_the_fewest_that_meet_it(projector: str) -> None:
    values = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    grad, total, ranks = spectrum(values, 12, 20), sum(v**2 for v in values), []
    for energy in (0.1, 0.45, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999):
        options = {"rank": 6, "projector": projector, "rank_rule": "energy", "energy": energy, "oversample": 14}
        _, optimizer = optimize(torch.zeros(12, 20, dtype=F64), [grad], **options)
        ranks.append(round(optimizer.effective_rank()))
        assert sum(v**2 for v in values[: ranks[-1]]) >= energy * total
        assert sum(v**2 for v in values[: ranks[-1] - 1]) < energy * total
        kept = moved(grad, **{**options, **PLAIN}).square().sum()
        assert kept.item() == pytest.approx(sum(v**2 for v in values[: ranks[-1]]))
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 3


def test_the_energy_rule_is_capped_by_the_rank() -> None:
    _, optimizer = optimize(torch.zeros(9, 9, dtype=F64), [torch.eye(9, dtype=F64)], rank=3, rank_rule="energy", energy=0.9)
    assert optimizer.effective_rank() == 3


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
@pytest.mark.parametrize(("threshold", "kept"), [(0.0, 6), (0.15, 5), (0.35, 4), (0.5, 3), (0.9, 1), (1.0, 0)])
def test_the_svt_rule_thresholds_singular_values(projector: str, threshold: float, kept: int) -> None:
    """P P'G = U max(S - tau, 0) V' with tau = threshold sigma_1, at a refresh."""
    values = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    grad = spectrum(values, 12, 20)
    options = {"rank": 6, "projector": projector, "rank_rule": "svt", "threshold": threshold, "oversample": 14}
    expected = spectrum([max(v - threshold * 5.0, 0.0) for v in values], 12, 20)
    assert close(moved(grad, **options, **PLAIN), expected, atol=1e-7)
    _, optimizer = optimize(torch.zeros(12, 20, dtype=F64), [grad], **options)
    assert optimizer.effective_rank() == kept == sum(v > threshold * 5.0 for v in values)


def test_the_effective_rank_is_a_mean_over_adaptive_matrices() -> None:
    one, two, fixed, vector = (nn.Parameter(torch.zeros(*s, dtype=F64)) for s in ((8, 8), (8, 8), (8, 8), (8,)))
    adaptive = {"rank_rule": "svt", "threshold": 0.5}
    optimizer = ProjectedAdam([{"params": [one, two, vector], **adaptive}, {"params": [fixed]}], rank=5)
    assert optimizer.effective_rank() is None
    one.grad, two.grad, fixed.grad, vector.grad = spectrum([4, 3], 8, 8), spectrum([4, 3, 3, 3, 1], 8, 8), fixed + 1, vector + 1
    optimizer.step()
    assert optimizer.effective_rank() == (2 + 4) / 2
    assert ProjectedAdam([nn.Parameter(torch.zeros(4, 4))], rank=2).effective_rank() is None


# Granularity and schemes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 2, 4, 0.5, 0.25])
@pytest.mark.parametrize(("cls", "side"), [*((ProjectedAdam, side) for side in SIDES[:-1]), (ProjFactor, "short")])
def test_granularity_projects_pieces(cls, c: float, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert {tuple(i) for i in glued.nonzero().tolist()} == {(r, k) for r in (0, 1) for k in range(16)}


@pytest.mark.parametrize("cls", [ProjectedAdam, ProjFactor])
@pytest.mark.parametrize(
    ("shape", "c"), [((8, 16), 3), ((16, 8), 3), ((5, 16), 2), ((16, 5), 2), ((15, 8), 0.5), ((8, 15), 1 / 7)]
)
def test_a_granularity_that_does_not_divide_is_refused(cls, shape: tuple[int, int], c: float) -> None:
    with pytest.raises(ValueError, match=f"granularity: got .* {shape[0]} x {shape[1]} matrix"):
        cls([nn.Parameter(torch.zeros(shape))], rank=2, granularity=c)


@pytest.mark.parametrize(
    ("shape", "c"), [((98, 100), 49), ((100, 98), 49), ((3, 6), 1 / 3), ((98, 147), 1 / 49), ((12, 103), 3)]
)
def test_any_granularity_that_divides_is_taken(shape: tuple[int, int], c: float) -> None:
    """Also those whose reciprocals are not exact."""
    grad = gradients(1, *shape)[0]
    basis_rank = min(seen(grad, "short", c).shape)
    assert close(moved(grad, rank=basis_rank, granularity=c, **PLAIN), grad, atol=1e-10)


@pytest.mark.parametrize(
    ("projector", "side"), [("svd", "both"), *((p, side) for p in ("svd", "normal", "dct") for side in SIDES[:-1])]
)
def test_the_original_scheme_is_adam_on_the_back_projected_gradient(projector: str, side: str) -> None:
    """The moments of P P'G (P P'G Q Q' for both sides) in the weight's own space; P of each step comes from plain steps."""
    grads, weight = gradients(5, 6, 10), gradients(1, 6, 10, seed=2)[0]
    options = {"rank": 3, "projector": projector, "side": side, "interval_steps": 2}
    found, _ = optimize(weight, grads, **options, scheme="original", scale=1.0, weight_decay=0.1)
    plain, theirs = nn.Parameter(torch.zeros_like(weight)), nn.Parameter(weight.clone())
    projection, adamw = ProjectedAdam([plain], **options, **PLAIN), torch.optim.AdamW([theirs], 0.1, weight_decay=0.1)
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


# State ----------------------------------------------------------------------------------------------------------------

STATES = [
    {"projector": p, "side": s, "rule": r, "scheme": k, "momentum": 0.9, "rank": 3}
    for p, s, r, k in itertools.product(
        ["svd", "rsvd", "dct", "normal"], SIDES, ["adam", "sgd", "factored"], ["subspace", "original"]
    )
    if s != "both" or p in ("svd", "rsvd")
] + [
    {"rank": 3, "rule": "sgd"},
    {"rank": 3, "drift": 0.5},
    {"rank": 3, "drift": 0.5, "side": "both"},
    {"rank": 3, "granularity": 2.0},
    {"rank": 3, "granularity": 0.5, "projector": "normal", "scheme": "original"},
    {"rank": 4, "rank_rule": "svt", "transport": "project"},
    {"rank": 50, "rank_rule": "percent", "transport": "reset"},
    {"rank": 500, "rank_rule": "proportional", "projector": "rsvd", "sketch_factor": 2},
    {"rank": 3, "random_from_step": 2, "convention": "transformers"},
]


def numbers(state: dict) -> int:
    return sum(value.numel() for value in state.values() if torch.is_tensor(value))


def test_state_is_the_formula() -> None:
    """Predicted on meta, kept after a step, and written in the formula: one number."""
    defaults = {"projector": "svd", "side": "short", "rule": "adam", "scheme": "subspace", "momentum": 0.0, "drift": 0.0}
    for options, shape in itertools.product(STATES, [(6, 10), (10, 6), (8, 8), (6, 5, 2)]):
        grad = gradients(1, *shape)[0]
        param, optimizer = optimize(torch.zeros_like(grad), [grad], **options)
        side, c = options.get("side", "short"), options.get("granularity", 1)
        m, n = grad.flatten(1).shape
        s, long = seen(grad.flatten(1), side, c).shape
        short = min(s, long)
        r = {"percent": options["rank"] * short // 100, "proportional": options["rank"] * short // 768}
        r = min(max(1, r.get(options.get("rank_rule"), options["rank"])), short)
        expected = eval(ProjectedAdam.formula(**{**defaults, **options}), {}, {"m": m, "n": n, "s": s, "L": long, "r": r})
        meta = nn.Parameter(torch.empty(shape, device="meta", dtype=F64))
        planned = ProjectedAdam([meta], **options)
        planned.allocate()
        assert (numbers(planned.state[meta]), numbers(optimizer.state[param])) == (expected, expected), (options, shape)


@pytest.mark.parametrize(
    ("rule", "momentum", "kept"), [("adam", 0.0, 14), ("factored", 0.0, 14), ("sgd", 0.9, 7), ("sgd", 0.0, 0)]
)
def test_a_vectors_state_is_its_formula(rule: str, momentum: float, kept: int) -> None:
    vector = nn.Parameter(torch.empty(7, device="meta"))
    optimizer = ProjectedAdam([vector], rank=2, rule=rule, momentum=momentum)
    optimizer.allocate()
    assert numbers(optimizer.state[vector]) == kept
    assert eval(ProjectedAdam.VECTOR, {}, {"k": 7, "rule": rule, "momentum": momentum}) == kept


def test_a_bfloat16_parameter_keeps_bfloat16_state() -> None:
    for options in STATES:
        grad = gradients(1, 6, 10, dtype=torch.bfloat16)[0]
        param, optimizer = optimize(torch.zeros_like(grad), [grad], **options)
        kept = {key: value.dtype for key, value in optimizer.state[param].items() if torch.is_tensor(value)}
        assert set(kept.values()) <= {torch.bfloat16, torch.int32}, options
        assert param.isfinite().all()
        assert (param != 0).any()


# Stacks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [o for o in STATES if o.get("side", "short") in ("short", "both")] + [{"rank": 2, "transport": "project"}],
    ids=str,
)
def test_matrices_in_one_stack_step_as_alone(options: dict) -> None:
    options = {**options, "interval_steps": 2}
    weights, grads = gradients(3, 6, 10, seed=1), [gradients(5, 6, 10, seed=10 + i) for i in range(3)]
    together = [nn.Parameter(w.clone()) for w in weights]
    optimizer = ProjectedAdam(together, 0.1, **options)
    for t in range(5):
        for param, own in zip(together, grads, strict=True):
            param.grad = own[t].clone()
        optimizer.step()
    alone = [optimize(w, own, **options)[0] for w, own in zip(weights, grads, strict=True)]
    assert all(close(a, b, atol=1e-12) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"projector": "normal"}, {"projector": "rsvd", "transport": "project"}, {"drift": 0.9}], ids=str
)
def test_a_parameter_without_gradient_waits(options: dict) -> None:
    """It neither moves nor counts the step, also when others of its shape do, and is then where it would be alone."""
    grads = [gradients(5, 6, 10, seed=s) for s in (1, 2)]
    grads[0][1] = grads[0][2] = grads[1][3] = None
    together = [nn.Parameter(torch.ones(6, 10, dtype=F64)) for _ in grads]
    options = {"rank": 3, "interval_steps": 2, **options}
    optimizer = ProjectedAdam(together, 0.1, weight_decay=0.1, **options)
    for pair in zip(*grads, strict=True):
        for param, grad in zip(together, pair, strict=True):
            param.grad = grad if grad is None else grad.clone()
        optimizer.step()
    for param, own in zip(together, grads, strict=True):
        there = [g for g in own if g is not None]
        alone, _ = optimize(torch.ones(6, 10, dtype=F64), there, weight_decay=0.1, **options)
        assert close(param, alone, atol=1e-12)
        assert optimizer.state[param]["step"] == len(there)


def test_a_parameter_group_added_later_leaves_the_others_state() -> None:
    grads = gradients(4, 6, 10)
    param, late = nn.Parameter(torch.zeros(6, 10, dtype=F64)), nn.Parameter(torch.zeros(6, 10, dtype=F64))
    optimizer = ProjectedAdam([param], 0.1, rank=3)
    for t, grad in enumerate(grads):
        if t == 2:
            optimizer.add_param_group({"params": [late], "lr": 0.2})
        param.grad, late.grad = grad.clone(), grad.clone()
        optimizer.step()
    assert close(param, optimize(torch.zeros(6, 10, dtype=F64), grads, rank=3)[0], atol=1e-13)
    assert close(late, optimize(torch.zeros(6, 10, dtype=F64), grads[2:], rank=3, lr=0.2)[0], atol=1e-13)


def test_a_copy_goes_its_own_way() -> None:
    grads = gradients(4, 6, 10)
    model = nn.ParameterList([torch.zeros(6, 10, dtype=F64), torch.zeros(6, 10, dtype=F64)])
    optimizer = ProjectedAdam(model.parameters(), 0.1, rank=3)

    def advance(model: nn.Module, optimizer: torch.optim.Optimizer, coming: list[Tensor]) -> None:
        for grad in coming:
            for param in model:
                param.grad = grad.clone()
            optimizer.step()

    advance(model, optimizer, grads[:2])
    twin, twins = copy.deepcopy((model, optimizer))
    still = [p.detach().clone() for p in model]
    advance(twin, twins, grads[2:])
    assert all(torch.equal(a, b) for a, b in zip(model, still, strict=True))
    advance(model, optimizer, grads[2:])
    assert all(torch.equal(a, b) for a, b in zip(model, twin, strict=True))
