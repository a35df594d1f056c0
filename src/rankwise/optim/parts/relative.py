"""Pieces of Adafactor that AdaLomo and Flora share: its second moment, clipping and relative rate.

Source: Shazeer & Stern 2018, Adafactor, arXiv 1804.04235, Algorithm 4. All is computed in fp32 for
weights in bf16 or fp16, as in the authors' codes.
"""

import torch
from torch import Tensor

from rankwise.optim.parts.descent import State
from rankwise.optim.parts.precision import wide, wide_zeros
from rankwise.optim.parts.rules import factored_root


def init_squares(param: Tensor) -> State:
    """Return the second moment's state: row and column sums, m + n; v (k) of a vector."""
    if param.ndim < 2:
        return {"squares": wide_zeros(param, *param.shape)}
    rows, columns = param.flatten(1).shape
    return {"row_sums": wide_zeros(param, rows), "column_sums": wide_zeros(param, columns)}


def normalised(
    grad: Tensor,  # (m, ...) or (k,)
    state: State,
    step: int,
) -> Tensor:  # as grad, contiguous
    """Update the second moment, with decay 1 - t^-0.8, and divide the gradient by its root.

    The 1e-30 is Adafactor's eps_1; it keeps the root of an all-zero gradient above 0.

    Args:
        grad: G.
        state: that of `init_squares`, updated in place.
        step: t, from 1.

    Returns:
        U in new memory, in fp32 or fp64.
    """
    decay = 1 - step**-0.8
    grad = wide(grad)
    square = grad.square().add_(1e-30)
    if "squares" in state:
        root = state["squares"].lerp_(square, 1 - decay).sqrt()
    else:
        sums = state["row_sums"], state["column_sums"]
        root = factored_root(square.flatten(1), *sums, decay).view(grad.shape)
    return torch.div(grad, root, out=root)


def clip_rms_(update: Tensor, limit: float) -> None:
    """Scale `update` in place so that the root mean square of its entries is at most `limit`.

    Args:
        update: any shape.
        limit: largest allowed root mean square, above 0.
    """
    update.div_((rms(update) / limit).clamp(min=1))


def relative_(update: Tensor, param: Tensor, smallest: float, weight_decay: float) -> Tensor:
    """Turn an update into a direction whose size and decay are relative to the weight's.

        d = max(smallest, RMS(W)) * (U + weight_decay * W)

    Args:
        update: U, changed in place.
        param: W.
        smallest: least root mean square that a weight counts with.
        weight_decay: decoupled, per unit of the relative learning rate.

    Returns:
        `update`.
    """
    if weight_decay:
        update.add_(wide(param), alpha=weight_decay)
    return update.mul_(rms(param).clamp(min=smallest))


def rms(tensor: Tensor) -> Tensor:  # ()
    """Return the root mean square of a tensor's entries, in fp32 or fp64."""
    return torch.linalg.vector_norm(wide(tensor)) / tensor.numel() ** 0.5
