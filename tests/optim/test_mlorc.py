"""MLorc: AdamW on moments that go through a randomized SVD at each step, written out by the test."""

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, close, gradients, optimize
from rankwise.optim import MLorc
from rankwise.optim.mlorc import without_negatives

LR, DECAY, EPS = 0.05, 0.1, 1e-6


def low_rank(matrix: Tensor, sketch: Tensor, rank: int) -> Tensor:
    """Halko, Martinsson & Tropp 2011: the best rank-r approximation within the range of X Omega."""
    q = torch.linalg.qr(matrix @ sketch).Q
    u, s, vh = torch.linalg.svd(q.mT @ matrix, full_matrices=False)
    return q @ u[:, :rank] @ s[:rank].diag() @ vh[:rank]


@pytest.mark.parametrize("oversample", [0, 2])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_it_is_its_equations(shape: tuple[int, int], oversample: int, drawn: list[Tensor]) -> None:
    start, *grads = gradients(7, *shape)
    param = nn.Parameter(start.clone())
    optimizer = MLorc(
        [param], LR, rank=2, oversample=oversample, weight_decay=DECAY, eps=EPS, seed=3
    )
    value, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    repaired = 0
    for t, grad in enumerate(grads, start=1):
        drawn.clear()
        param.grad = grad.clone()
        optimizer.step()
        negative = square < 0
        repaired += int(negative.sum())
        if negative.any():
            square = torch.where(negative, square[negative].abs().mean(), square)
        mean, square = B1 * mean + (1 - B1) * grad, B2 * square + (1 - B2) * grad**2
        direction = mean / (1 - B1**t) / ((square / (1 - B2**t)).sqrt() + EPS)
        value = (1 - LR * DECAY) * value - LR * direction
        assert close(param, value, 1e-8), t
        for_mean, for_square = drawn
        assert for_mean.shape == (shape[1], 2 + oversample)
        assert not torch.equal(for_mean, for_square)
        mean, square = low_rank(mean, for_mean, 2), low_rank(square, for_square, 2)
    assert repaired


def test_at_full_rank_it_is_adamw() -> None:
    start, *grads = gradients(6, 6, 10)
    ours, _ = optimize(MLorc, start, grads, rank=6, weight_decay=DECAY)
    theirs = nn.Parameter(start.clone())
    adamw = torch.optim.AdamW([theirs], 0.1, weight_decay=DECAY)
    for grad in grads:
        theirs.grad = grad.clone()
        adamw.step()
    assert close(ours, theirs, 1e-8)


def test_gradients_of_rank_one_with_one_sign_are_adamws() -> None:
    """Of one matrix u v^T with scales: both moments have rank one, so rank one loses nothing."""
    u, v = gradients(1, 6, seed=1)[0].abs(), gradients(1, 10, seed=2)[0].abs()
    grads = [scale * torch.outer(u, v) for scale in (1.0, 0.3, 2.0, 0.7)]
    start = torch.zeros(6, 10, dtype=F64)
    ours, _ = optimize(MLorc, start, grads, rank=1)
    full, _ = optimize(MLorc, start, grads, rank=6)
    assert close(ours, full, 1e-9)
    assert (ours + 0.1).abs().max() > 0.01


def test_negative_entries_become_the_mean_of_their_magnitudes() -> None:
    """By hand: of -1 and -3 it is 2."""
    square = torch.tensor([[4.0, -1.0], [-3.0, 0.0]])
    assert without_negatives(square).tolist() == [[4.0, 2.0], [2.0, 0.0]]
    assert without_negatives(square.abs()).tolist() == [[4.0, 1.0], [3.0, 0.0]]
