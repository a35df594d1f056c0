"""How many directions a matrix really uses."""

import torch
from torch import Tensor


def effective_rank(left: Tensor, right: Tensor) -> float:
    """Of left @ right, (m, r) and (r, n): e to the entropy of its normalised singular values; 0 for a product of zeros.

    Between 1 and r (Roy & Vetterli 2007, "The effective rank", definition 1); from the r x r core of two QR factorisations.
    """
    core = torch.linalg.qr(left.double()).R @ torch.linalg.qr(right.double().T).R.T
    values = torch.linalg.svdvals(core)
    if not values.sum():
        return 0.0
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item()
