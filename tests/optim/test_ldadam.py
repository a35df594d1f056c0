"""LDAdam, against the authors' mathematics in float64, and what follows from it."""

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients, optimize
from rankwise.optim import LDAdam

ZEROS = torch.zeros(6, 10, dtype=F64)


def seen(matrix: Tensor) -> Tensor:
    """A matrix seen as the authors project it: rows first unless there are more rows than columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def spans(basis: Tensor, vectors: Tensor) -> bool:
    """Whether the columns of `vectors` lie in the span of the basis."""
    return close(basis @ torch.linalg.lstsq(basis, vectors).solution, vectors, 1e-10)


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_it_is_its_equations(shape: tuple[int, int], feedback: bool) -> None:
    """a = G + E; P spans B B^T P_old, B = rho P_old m_hat + (1 - rho) a; moments are carried by Q = P^T P_old."""
    b1, b2, rho, eps = 0.908, 0.99, 0.908, 1e-8
    param, expected = nn.Parameter(torch.ones(shape, dtype=F64)), torch.ones(shape, dtype=F64)
    optimizer = LDAdam([param], 0.1, rank=3, error_feedback=feedback, weight_decay=0.1)
    m, v = (torch.zeros(3, max(shape), dtype=F64) for _ in range(2))
    error, old = torch.zeros(min(shape), max(shape), dtype=F64), None
    for t, grad in enumerate(gradients(4, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        a, basis = seen(grad) + error, optimizer.state[param]["basis"].clone()
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
            assert close(seen(optimizer.state[param]["error"]), error, 1e-10)
        step = step if shape[0] <= shape[1] else step.mT
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * step
        assert close(param, expected, 1e-10)
        old = basis


def test_it_loses_nothing_at_full_rank() -> None:
    _, state = optimize(LDAdam, ZEROS, gradients(5, 6, 10), rank=6)
    assert state["error"].abs().max() < 1e-12


def test_a_square_matrix_is_projected_on_the_left() -> None:
    """One step moves it within the span of the gradient's leading left singular vectors."""
    grad = gradients(1, 8, 8)[0]
    moved, _ = optimize(LDAdam, torch.zeros_like(grad), [grad], rank=2)
    left, right = (torch.linalg.svd(matrix).U[:, :2] for matrix in (grad, grad.mT))
    assert spans(left, moved.detach())
    assert not spans(right, moved.detach().mT)
