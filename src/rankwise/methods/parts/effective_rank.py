"""The effective rank of a matrix product: how many directions it really uses."""

import torch
from torch import Tensor


def effective_rank(
    left: Tensor,  # (m, r)
    right: Tensor,  # (r, n)
) -> float:
    """The effective rank of left @ right: e to the entropy of its normalised singular values.

    Args:
        left: the first factor, of any dtype.
        right: the second factor, of any dtype.

    Returns:
        A number between 1 and r; 0 for a product of zeros.

    References:
        Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality",
        definition 1.
    """
    # With left = Q1 R1 and right' = Q2 R2, left @ right = Q1 (R1 R2') Q2' has the singular values
    # of the r x r core R1 R2', so the (m, n) product is never formed.
    left_core = torch.linalg.qr(left.double()).R
    right_core = torch.linalg.qr(right.double().T).R
    singular_values = torch.linalg.svdvals(left_core @ right_core.T)
    if not singular_values.sum():
        return 0.0
    shares = singular_values / singular_values.sum()
    return torch.special.entr(shares).sum().exp().item()
