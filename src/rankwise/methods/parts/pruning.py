"""Masks that prune: which entries stay, at what sparsity, when. Legend: s sparsity (share of zeros), t optimizer step."""

import torch
from torch import Tensor


def cubic_sparsity(
    t: int, initial: float, final: float, begin: int, every: int, count: int
) -> float:
    """s_f + (s_i - s_f) (1 - (t - t0) / (k dt))^3, clamped to s_i before t0 and to s_f after t0 + k dt.

    Zhu & Gupta 2017, arXiv 1710.01878, equation 1; begin is t0, every dt, count k.
    """
    if t < begin:
        return initial
    left = max(0.0, 1 - (t - begin) / (every * count))
    return final + (initial - final) * left**3


def keep_largest(scores: Tensor, sparsity: float, kept: Tensor) -> Tensor:
    """A mask over `scores` (not negative) with exactly floor(s * numel) zeros, or as many as `kept` has if those are more.

    What `kept` has dropped stays dropped, whatever the ties.
    """
    drop = int(sparsity * scores.numel())
    order = scores.masked_fill(~kept, -1.0).flatten().argsort(stable=True)
    mask = kept.flatten().clone()
    mask[order[:drop]] = False
    return mask.view_as(scores)


def component_norms(a: Tensor, b: Tensor) -> Tensor:
    """||B_:i|| ||A_i:|| of every rank component i of B A, with A (r, n) and B (m, r)."""
    return torch.linalg.vector_norm(b, dim=0) * torch.linalg.vector_norm(a, dim=1)


def soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """sign(x) max(|x| - threshold, 0): the proximal step of an L1 penalty."""
    return x.sign() * (x.abs() - threshold).clamp_min(0)
