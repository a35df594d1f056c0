"""Optimizers that find their basis in the gradient and keep what lies outside it: Fira and LDAdam."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B2, F64, adam, close, gradients, optimize, short
from rankwise.optim import Fira, LDAdam, ProjectedAdam

both_shapes = pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
ZEROS = torch.zeros(6, 10, dtype=F64)

# Fira ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", ["paper", "published"])
@both_shapes
def test_fira_is_its_equations(shape: tuple[int, int], residual: str) -> None:
    """W <- W - lr (a P N + S), S = phi (G - P R) with its growth limited; published, a P R is subtracted."""
    alpha, lr, decay = 0.25, 0.1, 0.1
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    options = {"rank": 3, "scale": alpha, "residual": residual, "interval_steps": 3}
    optimizer = Fira([param], lr, **options, weight_decay=decay)
    m, v = torch.zeros(3, 10, dtype=F64), torch.zeros(3, 10, dtype=F64)
    was_limited, last_norm = [], math.inf
    grads = gradients(6, *shape)
    grads[2:4] = [5 * grads[2], 5 * grads[3]]
    for t, grad in enumerate(grads, start=1):
        param.grad = grad.clone()
        optimizer.step()
        g, basis = short(grad), optimizer.state[param]["basis"].clone()
        low = basis.mT @ g
        n = adam(m, v, low, t, 1e-6, "transformers")
        phi = n.norm(dim=0) / low.norm(dim=0)
        subtracted = alpha if residual == "published" else 1.0
        s = phi * (g - subtracted * basis @ low)
        was_limited.append(s.norm().item() > 1.01 * last_norm)
        if was_limited[-1]:
            s = s * (1.01 * last_norm / s.norm())
        last_norm = s.norm().item()
        update = alpha * basis @ n + s
        update = update if shape[0] < shape[1] else update.mT
        expected = (1 - lr * decay) * (expected - lr * update)
        assert close(param, expected, 1e-7)  # the code adds 1e-8 to ||R_j||
    assert set(was_limited[1:]) == {True, False}


def test_fira_at_full_rank_is_the_projection() -> None:
    """P P^T G + (G - P P^T G) = G: nothing is left over, so the step is the projected Adam's."""
    options = {"rank": 6, "interval_steps": 2, "convention": "transformers", "eps": 1e-6}
    ours, _ = optimize(Fira, ZEROS, gradients(5, 6, 10), scale=1.0, **options)
    plain, _ = optimize(ProjectedAdam, ZEROS, gradients(5, 6, 10), scale=1.0, **options)
    assert close(ours, plain, 1e-12)


def test_firas_published_residual_keeps_a_share_inside_the_subspace() -> None:
    """At full rank and scale a it is phi (1 - a) G, and the paper's is 0."""
    grads, options = gradients(1, 6, 10), {"rank": 6, "scale": 0.25}
    published, _ = optimize(Fira, ZEROS, grads, residual="published", **options)
    paper, state = optimize(Fira, ZEROS, grads, **options)
    low = state["basis"].mT @ grads[0]
    n = low / (low.abs() + 1e-6 / math.sqrt(1 - B2))
    residual = n.norm(dim=0) / low.norm(dim=0) * 0.75 * grads[0]
    assert close((paper - published) / 0.1, residual, 1e-7)


def test_firas_residual_grows_by_a_hundredth_at_most() -> None:
    """The residual is the part of a step that lies outside the basis."""
    param = nn.Parameter(ZEROS.clone())
    optimizer, norms = Fira([param], 0.1, rank=2), []
    for t, grad in enumerate(gradients(12, 6, 10)):
        before = param.detach().clone()
        param.grad = grad * 1.5**t
        optimizer.step()
        basis, moved = optimizer.state[param]["basis"], (before - param.detach()) / 0.1
        norms.append((moved - basis @ (basis.mT @ moved)).norm().item())
    ratios = [after / before for before, after in itertools.pairwise(norms)]
    assert max(ratios) <= 1.01 + 1e-9
    assert max(ratios) > 1.0099


# LDAdam -------------------------------------------------------------------------------------------


def spans(basis: Tensor, vectors: Tensor) -> bool:
    """Whether the columns of `vectors` lie in the span of the basis."""
    return close(basis @ torch.linalg.lstsq(basis, vectors).solution, vectors, 1e-10)


@pytest.mark.parametrize("feedback", [True, False])
@both_shapes
def test_ldadam_is_its_equations(shape: tuple[int, int], feedback: bool) -> None:
    """a = G + E; P spans B B^T P_old, B = rho P_old m_hat + (1 - rho) a; moments are carried by Q = P^T P_old."""
    b1, b2, rho, eps = 0.908, 0.99, 0.908, 1e-8
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    optimizer = LDAdam([param], 0.1, rank=3, error_feedback=feedback, weight_decay=0.1)
    m, v = torch.zeros(3, 10, dtype=F64), torch.zeros(3, 10, dtype=F64)
    error, old = torch.zeros(6, 10, dtype=F64), None
    for t, grad in enumerate(gradients(4, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        a, basis = short(grad) + error, optimizer.state[param]["basis"].clone()
        assert close(basis.mT @ basis, torch.eye(3, dtype=F64))
        if t == 1:
            assert spans(basis, torch.linalg.svd(a).U[:, :3])
            momentum_before, carried = 0, m
        else:
            mean, square = m / (1 - b1 ** (t - 1)), v / (1 - b2 ** (t - 1))
            b = rho * old @ mean + (1 - rho) * a
            assert spans(basis, b @ b.mT @ old)
            q = basis.mT @ old
            momentum_before, carried = old @ m, q @ m
            v = (1 - b2 ** (t - 1)) * (q**2 @ (square - mean**2) + (q @ mean) ** 2).abs()
        low = basis.mT @ a
        m = b1 * carried + (1 - b1) * low
        v = b2 * v + (1 - b2) * low**2
        step = basis @ (m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + eps))
        if feedback:
            error = a - basis @ low + b1 / (1 - b1) * (momentum_before - basis @ carried)
            assert close(short(optimizer.state[param]["error"]), error, 1e-10)
        step = step if shape[0] < shape[1] else step.mT
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * step
        assert close(param, expected, 1e-10)
        old = basis


def test_ldadam_loses_nothing_at_full_rank() -> None:
    _, state = optimize(LDAdam, ZEROS, gradients(5, 6, 10), rank=6)
    assert state["error"].abs().max() < 1e-12
