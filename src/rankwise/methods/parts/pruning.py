"""Masks for pruning: which entries stay, at which sparsity, and when.

Legend: s sparsity (share of zeros), t optimizer step.
"""

import torch
from torch import Tensor


def cubic_sparsity(
    t: int, initial: float, final: float, begin: int, every: int, count: int
) -> float:
    """s_f + (s_i - s_f) (1 - (t - t0) / (k dt))^3, and s_i before t0 and s_f after t0 + k dt.

    Args:
        t: the step.
        initial: s_i.
        final: s_f.
        begin: t0, the step of the first pruning.
        every: dt, steps between prunings.
        count: k, the number of prunings.

    References:
        Zhu & Gupta 2017, arXiv 1710.01878, equation 1.
    """
    if t < begin:
        return initial
    remaining = max(0.0, 1 - (t - begin) / (every * count))
    return final + (initial - final) * remaining**3


def keep_largest(scores: Tensor, sparsity: float, kept: Tensor) -> Tensor:
    """A mask over `scores` with exactly floor(s * numel) zeros, at the smallest scores.

    Args:
        scores: of any shape, not negative.
        sparsity: s.
        kept: the mask of earlier prunings. Entries that it has dropped stay dropped; if they are
            more than floor(s * numel), these alone are.
    """
    drop = int(sparsity * scores.numel())
    # Dropped entries come first in the order, whatever the ties among the scores.
    order = scores.masked_fill(~kept, -1.0).flatten().argsort(stable=True)
    mask = kept.flatten().clone()
    mask[order[:drop]] = False
    return mask.view_as(scores)


def component_norms(
    a: Tensor,  # (r, n)
    b: Tensor,  # (m, r)
) -> Tensor:  # (r)
    """||B_:i|| ||A_i:|| of every rank component i of B A.

    Args:
        a: A, LoRA's first factor.
        b: B, LoRA's second factor.
    """
    return torch.linalg.vector_norm(b, dim=0) * torch.linalg.vector_norm(a, dim=1)


def soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """sign(x) max(|x| - threshold, 0): the proximal step of an L1 penalty.

    Args:
        x: any shape.
        threshold: learning rate times weight of the penalty, not negative.

    Returns:
        A new tensor of the shape of `x`.
    """
    return x.sign() * (x.abs() - threshold).clamp_min(0)
