"""In which dtype state is kept: sums that decay slowly need more digits than bf16 has.

In bf16 a number has 8 bits, so 0.999 v rounds back to v: a second moment would never decay. Second
moments, their row and column sums, and norms are therefore fp32 for weights in bf16 or fp16. Bases
and first moments have the weight's dtype: 0.9 m does not round back to m. torch's own optimizers
(AdamW, Adafactor, and TopR, which is an AdamW) keep all state in the weight's dtype.
"""

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in fp32 or fp64; a tensor that is in one of them is returned as it is."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def wide_zeros(like: Tensor, *shape: int) -> Tensor:
    """Return zeros for a sum that decays slowly: in fp64 if `like` is, else in fp32.

    Args:
        like: a tensor of the wanted device.
        *shape: of the result; a single number, (), if there is none.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return like.new_zeros(shape, dtype=dtype)
