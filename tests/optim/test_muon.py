"""Muon: matrices step as torch.optim.Muon, all other parameters as torch.optim.AdamW."""

import math

import pytest
import torch
from torch import nn

from helpers.optimizing import F64, close, gradients
from rankwise.optim import Muon
from rankwise.optim.muon import newton_schulz

LR, DECAY = 0.05, 0.1


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_matrices_step_as_torchs_muon(shape: tuple, nesterov: bool, adjust: str) -> None:
    start, *grads = gradients(6, *shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": DECAY}
    pairs = [
        (ours, Muon([ours], LR, adjust=adjust, **options)),
        (theirs, torch.optim.Muon([theirs], LR, adjust_lr_fn=adjust, **options)),
    ]
    for grad in grads:
        for param, optimizer in pairs:
            param.grad = grad.clone()
            optimizer.step()
        assert close(ours, theirs, 1e-6)
    assert (ours - start).abs().max() > 0.05


def test_vectors_and_dense_groups_step_as_torchs_adamw_at_their_own_rate() -> None:
    """At `adamw_scale` times the rate; decay follows the group's rate, so torch's is divided by it."""
    starts = gradients(1, 7) + gradients(1, 6, 10)
    grads = [gradients(5, 7, seed=3), gradients(5, 6, 10, seed=4)]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    groups = [{"params": ours[:1]}, {"params": ours[1:], "dense": True}]
    muon = Muon(groups, LR, adamw_scale=0.5, weight_decay=DECAY)
    adamw = torch.optim.AdamW(theirs, 0.5 * LR, weight_decay=DECAY / 0.5)
    for pair in zip(*grads, strict=True):
        for params, optimizer in ((ours, muon), (theirs, adamw)):
            for param, grad in zip(params, pair, strict=True):
                param.grad = grad.clone()
            optimizer.step()
    for one, other, start in zip(ours, theirs, starts, strict=True):
        assert close(one, other, 1e-12)
        assert not close(one, start, 0.05)


def test_an_update_has_the_root_mean_square_of_adamws() -> None:
    """Liu et al. 2025: RMS(U V^T) = sqrt(1 / max(m, n)), times .2 sqrt(max(m, n)): .2; within the quintic's width."""
    for shape in ((16, 64), (64, 16)):
        param = nn.Parameter(torch.zeros(shape, dtype=F64))
        optimizer = Muon([param], 1.0)
        param.grad = gradients(1, *shape)[0]
        optimizer.step()
        root = param.detach().square().mean().sqrt().item()
        assert 0.2 * 0.68 < root < 0.2 * 1.2


def test_the_orthogonalised_matrix_keeps_singular_vectors() -> None:
    """Of known vectors: X = 5 u1 v1^T + u2 v2^T goes to s1 u1 v1^T + s2 u2 v2^T with both s near 1."""
    u = torch.linalg.qr(gradients(1, 6, 2, seed=1)[0]).Q
    v = torch.linalg.qr(gradients(1, 10, 2, seed=2)[0]).Q
    matrix = u @ torch.diag(torch.tensor([5.0, 1.0], dtype=F64)) @ v.mT
    inner = u.mT @ newton_schulz(matrix, 5).double() @ v
    assert inner.diag().min() > 0.65
    assert inner.diag().max() < 1.25
    assert (inner - inner.diag().diag()).abs().max() < 0.05
    assert math.isclose((newton_schulz(0 * matrix, 5)).abs().max().item(), 0.0)
