"""ProjectedAdam's step against its equations, and against torch and GaLore where they must agree."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, close, gradients
from helpers.projected_adam import PLAIN, SIDES, adam, bases, dct_ii, moved, optimize, seen, unseen
from rankwise.optim import ProjectedAdam
from rankwise.optim.parts import projectors


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
@pytest.mark.parametrize(("projector", "convention", "decay", "side"), [
    (*case, side)
    for case in (("svd", "torch", 0.1), ("rsvd", "transformers", 0.1), ("dct", "torch", 0.0))
    for side in (SIDES[:-1] if case[0] == "dct" else SIDES)
])  # fmt: skip
def test_steps_are_their_equations(
    projector: str, convention: str, decay: float, side: str, shape: tuple[int, int]
) -> None:
    """R = P'G, moments of R, W <- (1 - lr wd) W - lr alpha P D, over two intervals; the basis found is the leading one."""
    rank, lr, scale, eps, grads = 3, 0.1, 0.5, 1e-3, gradients(5, *shape)
    options = {
        "rank": rank,
        "side": side,
        "projector": projector,
        "scale": scale,
        "interval_steps": 3,
        "eps": eps,
    }
    param = nn.Parameter(gradients(1, *shape, seed=1)[0])
    optimizer = ProjectedAdam(
        [param], lr, **options, oversample=10, convention=convention, weight_decay=decay
    )
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
                assert set(optimizer.state[param]["columns"].tolist()) == set(
                    scores.topk(rank).indices.tolist()
                )
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
def test_steps_with_a_drawn_basis_are_their_equations(
    projector: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The basis is drawn again at every use, from a seed: the same within an interval, another in the next; none is kept."""
    drawn, draw = [], projectors.draw

    def spy(*arguments) -> Tensor:
        drawn.append(draw(*arguments))
        return drawn[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    param, grads = nn.Parameter(torch.zeros(6, 10, dtype=F64)), gradients(5, 6, 10)
    optimizer = ProjectedAdam(
        [param], 0.1, rank=3, side=side, projector=projector, scale=0.5, interval_steps=2
    )
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
        expected -= (
            0.1 * 0.5 * unseen(used[-1] @ adam(m, v, low, t, 1e-8, "torch"), param.shape, side)
        )
        assert close(param, expected, atol=1e-13)
    same = [torch.equal(a, b) for a, b in itertools.pairwise(used)]
    assert same == [True, False, True, False]


def test_a_signed_permutation_as_basis_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam is not rotation-equivariant, so full rank is not Adam; with a signed permutation it is, exactly."""
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    basis = torch.eye(6, dtype=F64)[:, order] * torch.tensor(
        [1.0, -1.0, 1.0, 1.0, -1.0, -1.0], dtype=F64
    )
    monkeypatch.setattr(
        projectors, "svd", lambda grads, rank: (basis[None], torch.ones(1, 6, dtype=F64))
    )
    grads, weight = gradients(8, 6, 10), gradients(1, 6, 10, seed=2)[0]
    found, _ = optimize(weight, grads, rank=6, scale=1.0, weight_decay=0.1, interval_steps=3)
    param = nn.Parameter(weight.clone())
    theirs = torch.optim.AdamW([param], 0.1, weight_decay=0.1)
    for grad in grads:
        param.grad = grad
        theirs.step()
    assert close(found, param, atol=1e-14)


@pytest.mark.parametrize(
    ("momentum", "transport", "fixed"),
    [(0.0, "none", False), (0.9, "project", False), (0.9, "none", True)],
)
@pytest.mark.parametrize("interval", [1, 3, 100])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_full_rank_sgd_is_torchs(
    shape, interval, momentum, transport, fixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fixed:
        basis = torch.linalg.qr(gradients(1, 6, 6, seed=3)[0])[0]
        monkeypatch.setattr(
            projectors, "svd", lambda grads, rank: (basis[None], torch.ones(1, 6, dtype=F64))
        )
    grads, weight = gradients(7, *shape), gradients(1, *shape, seed=2)[0]
    found, _ = optimize(
        weight,
        grads,
        rank=6,
        rule="sgd",
        momentum=momentum,
        transport=transport,
        scale=1.0,
        interval_steps=interval,
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
def test_within_an_interval_the_weight_moves_in_rank_r(
    projector: str, shape: tuple[int, int]
) -> None:
    weight, grads = torch.zeros(shape, dtype=F64), gradients(10, *shape)
    options = {"rank": 3, "projector": projector, "interval_steps": 5}
    assert torch.linalg.matrix_rank(optimize(weight, grads[:5], **options)[0]) == 3
    assert 3 < torch.linalg.matrix_rank(optimize(weight, grads, **options)[0]) <= 6


@pytest.mark.parametrize("convention", ["torch", "transformers"])
def test_vectors_and_dense_groups_step_by_adam(convention: str) -> None:
    """torch's to rounding; the other convention is Adam with eps divided by sqrt(1 - b2^t)."""
    vector, matrix = (
        nn.Parameter(torch.ones(7, dtype=F64)),
        nn.Parameter(torch.ones(4, 5, dtype=F64)),
    )
    groups = [{"params": [vector]}, {"params": [matrix], "dense": True}]
    optimizer = ProjectedAdam(
        groups, 0.1, rank=2, convention=convention, eps=1e-3, weight_decay=0.1
    )
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
def test_it_is_galores(
    shape: tuple[int, int], decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' optimizer over three refreshes. A tall matrix's basis is theirs by its sign too, which is arbitrary."""
    galore = pytest.importorskip("galore_torch")

    def svd(grads: list[Tensor], rank: int) -> tuple[Tensor, Tensor]:
        found = [torch.linalg.svd(g.mT, full_matrices=False) for g in grads]
        return torch.stack([f.Vh[:rank].mT for f in found]), torch.stack([f.S for f in found])

    if shape[0] > shape[1]:
        monkeypatch.setattr(projectors, "svd", svd)
    weight, grads = (
        gradients(1, *shape, seed=2)[0].float(),
        [g.float() for g in gradients(10, *shape)],
    )
    ours, _ = optimize(
        weight,
        grads,
        rank=2,
        interval_steps=4,
        scale=0.25,
        weight_decay=decay,
        convention="transformers",
        eps=1e-6,
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
    param, optimizer = optimize(
        torch.zeros(6, 10, dtype=F64), grads, rank=3, rule="factored", scale=1.0, eps=eps
    )
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
