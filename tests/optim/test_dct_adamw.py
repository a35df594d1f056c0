"""The entry dct_adamw is the authors' DCT-AdamW (Modoranu et al. 2025), in float64 mathematics of this test."""

import math

import pytest
import torch
import yaml
from scipy.fft import dct
from torch import nn

from helpers.optimizing import B1, B2, F64, close, gradients
from helpers.repository import ROOT
from rankwise.optim import ProjectedAdam

LR, DECAY, EPS, RANK = 0.1, 0.1, 1e-8, 3


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_every_step_selects_columns_anew(shape: tuple[int, int]) -> None:
    """S = DCT of G along its shorter side; the r coefficients with the largest l1 norm enter Adam.

    Moments are kept here for all coefficients: those of a coefficient that is not selected are
    zero. That is the authors' rotation by Q_now^T Q_before, whose entries are 0 and 1.
    """
    entry = yaml.safe_load((ROOT / "config/methods.yaml").read_text())["dct_adamw"]["optimizer"]
    assert entry.pop("module") == "projected_adam"
    param = nn.Parameter(torch.ones(shape, dtype=F64))
    optimizer = ProjectedAdam([param], LR, **entry, rank=RANK, weight_decay=DECAY)
    is_wide = shape[0] < shape[1]
    expected = torch.ones(shape, dtype=F64)
    small = min(shape)
    basis = torch.from_numpy(dct(torch.eye(small, dtype=F64).numpy(), norm="ortho", axis=0))
    m, v = (torch.zeros(small, max(shape), dtype=F64) for _ in range(2))
    selections = set()
    for t, grad in enumerate(gradients(8, *shape), start=1):
        param.grad = grad.clone()
        optimizer.step()
        coefficients = basis @ (grad if is_wide else grad.mT)
        chosen = coefficients.abs().sum(1).topk(RANK).indices
        selections.add(tuple(sorted(chosen.tolist())))
        mask = torch.zeros(small, 1, dtype=F64)
        mask[chosen] = 1.0
        m = mask * (B1 * m + (1 - B1) * coefficients)
        v = mask * (B2 * v + (1 - B2) * coefficients**2)
        adjusted = math.sqrt(1 - B2**t) / (1 - B1**t)
        step = adjusted * m / (v.sqrt() + EPS * math.sqrt(1 - B2**t))
        update = basis.mT @ step
        expected = (1 - LR * DECAY) * expected - LR * (update if is_wide else update.mT)
        assert close(param, expected, 1e-10)
    assert len(selections) > 2
