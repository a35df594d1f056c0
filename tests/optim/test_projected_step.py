"""ProjectedAdam's step against its equations, and against torch and GaLore where they must agree."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, adam, close, gradients
from helpers.optimizing import optimize as optimize_with
from helpers.projected_adam import PLAIN, SIDES, bases, dct_ii, moved, optimize, seen, unseen
from rankwise.optim import ProjectedAdam
from rankwise.optim.parts import projectors

both_shapes = pytest.mark.parametrize("shape", [(6, 10), (10, 6)])


def fix_basis(monkeypatch: pytest.MonkeyPatch, basis: Tensor) -> None:
    """Let every SVD find this basis."""
    values = torch.ones(1, basis.shape[1], dtype=F64)
    monkeypatch.setattr(projectors, "svd", lambda grads, rank: (basis[None], values))


def assert_leading(grad: Tensor, state: dict, projector: str, rank: int) -> None:
    """The state's basis is the leading one of this gradient (s, L)."""
    basis, other = bases(state, grad.shape[0])
    if projector == "dct":
        scores = (dct_ii(grad.shape[0]).mT @ grad).abs().sum(1)
        assert set(state["columns"].tolist()) == set(scores.topk(rank).indices.tolist())
        return
    exact = torch.linalg.svd(grad)
    left, right = exact.U[:, :rank], exact.Vh[:rank].mT
    assert close(basis @ basis.mT, left @ left.mT, atol=1e-9)
    if other is not None:
        assert close(other @ other.mT, right @ right.mT, atol=1e-9)


@both_shapes
@pytest.mark.parametrize(("projector", "convention", "decay", "side"), [
    (*case, side)
    for case in (("svd", "torch", 0.1), ("rsvd", "transformers", 0.1), ("dct", "torch", 0.0))
    for side in (SIDES[:-1] if case[0] == "dct" else SIDES)
])  # fmt: skip
def test_steps_are_their_equations(
    projector: str, convention: str, decay: float, side: str, shape: tuple[int, int]
) -> None:
    """R = P^T G, moments of R, W <- (1 - lr wd) W - lr scale P D, over two intervals."""
    rank, lr, scale, eps = 3, 0.1, 0.5, 1e-3
    options = {"rank": rank, "side": side, "projector": projector, "oversample": 10, "eps": eps}
    options |= {"scale": scale, "interval_steps": 3, "convention": convention}
    param = nn.Parameter(gradients(1, *shape, seed=1)[0])
    optimizer = ProjectedAdam([param], lr, **options, weight_decay=decay)
    expected, m, v = param.detach().clone(), None, None
    for t, grad in enumerate(gradients(5, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        g = seen(grad, side)
        if t in (1, 4):
            assert_leading(g, optimizer.state[param], projector, rank)
        basis, other = bases(optimizer.state[param], g.shape[0])
        low = basis.mT @ g if other is None else basis.mT @ g @ other
        if m is None:
            m, v = torch.zeros_like(low), torch.zeros_like(low)
        direction = basis @ adam(m, v, low, t, eps, convention)
        if other is not None:
            direction = direction @ other.mT
        update = lr * scale * unseen(direction, param.shape, side)
        if convention == "torch":
            expected = (1 - lr * decay) * expected - update
        else:
            expected = (1 - lr * decay) * (expected - update)
        assert close(param, expected, atol=1e-12)


@pytest.mark.parametrize("side", ["short", "long", "left", "right"])
@pytest.mark.parametrize("projector", ["normal", "rademacher", "orthonormal"])
def test_steps_with_a_drawn_basis_are_their_equations(
    projector: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The basis is drawn again at every use: the same within an interval, another in the next; none is kept."""
    drawn, draw = [], projectors.draw

    def spy(*arguments) -> Tensor:
        drawn.append(draw(*arguments))
        return drawn[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    param, expected = nn.Parameter(torch.zeros(6, 10, dtype=F64)), torch.zeros(6, 10, dtype=F64)
    options = {"rank": 3, "side": side, "projector": projector, "scale": 0.5, "interval_steps": 2}
    optimizer = ProjectedAdam([param], 0.1, **options)
    used, m, v = [], None, None
    for t, grad in enumerate(gradients(5, 6, 10), start=1):
        drawn.clear()
        param.grad = grad.clone()
        optimizer.step()
        assert set(optimizer.state[param]) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(basis, drawn[0]) for basis in drawn)
        used.append(drawn[0])
        low = used[-1].mT @ seen(grad, side)
        if m is None:
            m, v = torch.zeros_like(low), torch.zeros_like(low)
        direction = used[-1] @ adam(m, v, low, t, 1e-8, "torch")
        expected -= 0.1 * 0.5 * unseen(direction, param.shape, side)
        assert close(param, expected, atol=1e-13)
    same = [torch.equal(a, b) for a, b in itertools.pairwise(used)]
    assert same == [True, False, True, False]


def test_a_signed_permutation_as_basis_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam depends on the basis, so full rank is not Adam; with a signed permutation it is, exactly."""
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0], dtype=F64)
    fix_basis(monkeypatch, torch.eye(6, dtype=F64)[:, order] * signs)
    grads, weight = gradients(8, 6, 10), gradients(1, 6, 10, seed=2)[0]
    ours, _ = optimize(weight, grads, rank=6, scale=1.0, weight_decay=0.1, interval_steps=3)
    theirs, _ = optimize_with(torch.optim.AdamW, weight, grads, weight_decay=0.1)
    assert close(ours, theirs, atol=1e-14)


@pytest.mark.parametrize(
    ("momentum", "transport", "is_fixed"),
    [(0.0, "none", False), (0.9, "project", False), (0.9, "none", True)],
)
@pytest.mark.parametrize("interval", [1, 3, 100])
@both_shapes
def test_full_rank_sgd_is_torchs(
    shape: tuple[int, int],
    interval: int,
    momentum: float,
    transport: str,
    is_fixed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Momentum is torch's if it is transported, or if the basis stays."""
    if is_fixed:
        fix_basis(monkeypatch, torch.linalg.qr(gradients(1, 6, 6, seed=3)[0])[0])
    grads, weight = gradients(7, *shape), gradients(1, *shape, seed=2)[0]
    options = {"rule": "sgd", "momentum": momentum, "transport": transport, "scale": 1.0}
    ours, _ = optimize(weight, grads, rank=6, interval_steps=interval, **options)
    theirs, _ = optimize_with(torch.optim.SGD, weight, grads, momentum=momentum)
    assert close(ours, theirs, atol=1e-12)


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
def test_within_an_interval_the_weight_moves_in_rank_r(
    projector: str, shape: tuple[int, int]
) -> None:
    weight, grads = torch.zeros(shape, dtype=F64), gradients(10, *shape)
    options = {"rank": 3, "projector": projector, "interval_steps": 5}
    one_interval, _ = optimize(weight, grads[:5], **options)
    two_intervals, _ = optimize(weight, grads, **options)
    assert torch.linalg.matrix_rank(one_interval) == 3
    assert 3 < torch.linalg.matrix_rank(two_intervals) <= 6


@pytest.mark.parametrize("convention", ["torch", "transformers"])
def test_vectors_and_dense_groups_step_by_adam(convention: str) -> None:
    """With decay before the step in torch's convention, after it in the other."""
    vector = nn.Parameter(torch.ones(7, dtype=F64))
    matrix = nn.Parameter(torch.ones(4, 5, dtype=F64))
    groups = [{"params": [vector]}, {"params": [matrix], "dense": True}]
    options = {"rank": 2, "convention": convention, "eps": 1e-3, "weight_decay": 0.1}
    optimizer = ProjectedAdam(groups, 0.1, **options)
    expected = {param: param.detach().clone() for param in (vector, matrix)}
    moments = {param: (torch.zeros_like(param), torch.zeros_like(param)) for param in expected}
    for t, grads in enumerate(zip(gradients(5, 7), gradients(5, 4, 5), strict=True), start=1):
        vector.grad, matrix.grad = (grad.clone() for grad in grads)
        optimizer.step()
        for param, grad in zip((vector, matrix), grads, strict=True):
            update = 0.1 * adam(*moments[param], grad, t, 1e-3, convention)
            if convention == "torch":
                expected[param] = 0.99 * expected[param] - update
            else:
                expected[param] = 0.99 * (expected[param] - update)
            assert close(param, expected[param], atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_is_galores(
    shape: tuple[int, int], decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' optimizer over three refreshes."""
    galore = pytest.importorskip("galore_torch")

    def svd(grads: list[Tensor], rank: int) -> tuple[Tensor, Tensor]:
        found = [torch.linalg.svd(grad.mT, full_matrices=False) for grad in grads]
        basis = torch.stack([each.Vh[:rank].mT for each in found])
        return basis, torch.stack([each.S for each in found])

    # Signs of singular vectors are arbitrary, and moments depend on them. For a tall matrix the authors
    # decompose the transpose of what we decompose, so their signs are taken.
    if shape[0] > shape[1]:
        monkeypatch.setattr(projectors, "svd", svd)
    weight = gradients(1, *shape, seed=2)[0].float()
    grads = [grad.float() for grad in gradients(10, *shape)]
    options = {"rank": 2, "interval_steps": 4, "scale": 0.25, "eps": 1e-6}
    ours, _ = optimize(weight, grads, **options, convention="transformers", weight_decay=decay)
    theirs = nn.Parameter(weight.clone())
    group = {"params": [theirs], "rank": 2, "update_proj_gap": 4, "scale": 0.25, "proj_type": "std"}
    optimizer = galore.GaLoreAdamW([group], lr=0.1, weight_decay=decay, no_deprecation_warning=True)
    for grad in grads:
        theirs.grad = grad.clone()
        optimizer.step()
    assert close(ours, theirs, atol=1e-6)


def test_the_factored_rule_is_its_equations() -> None:
    """V = v_r v_c^T / sum(v_r) of R^2, bias-corrected as Adam's."""
    grads, eps = gradients(4, 6, 10), 1e-3
    expected = torch.zeros(6, 10, dtype=F64)
    options = {"rank": 3, "rule": "factored", "scale": 1.0, "eps": eps}
    param, optimizer = optimize(expected, grads, **options)
    basis = optimizer.state[param]["basis"]
    m, rows, columns = 0, 0, 0
    for t, grad in enumerate(grads, start=1):
        low = basis.mT @ grad
        m = B1 * m + (1 - B1) * low
        rows = B2 * rows + (1 - B2) * (low**2).sum(1)
        columns = B2 * columns + (1 - B2) * (low**2).sum(0)
        v = torch.outer(rows, columns) / rows.sum() / (1 - B2**t)
        expected -= 0.1 * basis @ (m / (1 - B1**t) / (v.sqrt() + eps))
    assert close(param, expected, atol=1e-13)
