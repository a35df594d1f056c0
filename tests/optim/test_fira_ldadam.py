"""Optimizers that find their basis in the gradient and keep what lies outside it, against their formulas: Fira and LDAdam."""

import itertools
import math

import pytest
import torch
from torch import nn

from helpers.optimizing import B2, F64, adam, close, gradients, optimize, short
from rankwise.optim import Fira, LDAdam, ProjectedAdam

# Fira -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", ["paper", "published"])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_fira_is_its_equations(shape: tuple[int, int], residual: str) -> None:
    """W <- W - lr [a P N + S], S = phi (G - P R), phi_j = ||N_j|| / ||R_j||, ||S|| <= 1.01 its last; theirs subtracts a P R."""
    alpha, lr, last, expected = 0.25, 0.1, 0.0, torch.ones(shape, dtype=F64)
    param = nn.Parameter(torch.ones(shape, dtype=F64))
    optimizer = Fira(
        [param], lr, rank=3, scale=alpha, residual=residual, interval_steps=3, weight_decay=0.1
    )
    m, v, held = torch.zeros(3, 10, dtype=F64), torch.zeros(3, 10, dtype=F64), []
    grads = gradients(6, *shape)
    for t, grad in enumerate([*grads[:2], 5 * grads[2], 5 * grads[3], *grads[4:]], start=1):
        param.grad = grad.clone()
        optimizer.step()
        g, basis = short(grad), optimizer.state[param]["basis"].clone()
        low = basis.mT @ g
        n = adam(m, v, low, t, 1e-6, "transformers")
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
    grads, options = (
        gradients(5, 6, 10),
        {"rank": 6, "interval_steps": 2, "convention": "transformers", "eps": 1e-6},
    )
    ours, _ = optimize(Fira, torch.zeros(6, 10, dtype=F64), grads, scale=1.0, **options)
    plain, _ = optimize(ProjectedAdam, torch.zeros(6, 10, dtype=F64), grads, scale=1.0, **options)
    assert close(ours, plain, 1e-12)
    kept, _ = optimize(
        Fira, torch.zeros(6, 10, dtype=F64), grads[:1], scale=0.25, residual="published", **options
    )
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


# LDAdam ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_ldadam_is_its_equations(shape: tuple[int, int], feedback: bool) -> None:
    """a = G + E; P spans B B'P_old, B = rho P_old m_hat + (1 - rho) a; moments by Q = P'P_old; E as what was lost of both."""
    b1, b2, rho, eps = 0.908, 0.99, 0.908, 1e-8
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    optimizer = LDAdam([param], 0.1, rank=3, error_feedback=feedback, weight_decay=0.1)
    m, v, error, old = (
        torch.zeros(3, 10, dtype=F64),
        torch.zeros(3, 10, dtype=F64),
        torch.zeros(6, 10, dtype=F64),
        None,
    )
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
