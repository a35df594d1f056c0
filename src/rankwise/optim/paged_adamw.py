"""AdamW whose moments are in pages that the driver moves to the host when GPU memory runs short.

Source: QLoRA (Dettmers et al. 2023, arXiv 2305.14314, section 3, Paged Optimizers), by
bitsandbytes. The arithmetic is AdamW's, with fp32 moments or with the 8-bit ones of adamw_8bit.
Only moments of 100,000 numbers or more are paged, and only on CUDA. On a CPU the moments are
ordinary tensors. The number of bytes is the same either way.
"""

from typing import Literal

import bitsandbytes
import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.bitsandbytes_base import BitsandbytesBase
from rankwise.optim.parts.checked import settings


class PagedAdamW(BitsandbytesBase, bitsandbytes.optim.PagedAdamW):
    """bitsandbytes' PagedAdamW, whose state can also be allocated ahead and on any device.

        m <- b1 m + (1 - b1) G
        v <- b2 v + (1 - b2) G^2
        W <- (1 - lr * weight_decay) W - lr * m_hat / (sqrt(v_hat) + eps)

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        betas: decays of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.
        bits: of the moments; 8 quantizes them as `AdamW8bit` does.
        min_8bit_size: with `bits=8`, tensors of fewer numbers keep fp32 moments.

    References:
        Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3.

    Example:
        >>> optimizer = PagedAdamW(model.parameters(), lr=1e-5)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    NOT_BY_GROUP = frozenset({"bits", "min_8bit_size"})
    STATE = "2 * m * n + (bits == 8 and m * n >= min_8bit_size) * (2 * -(m * n // -256) + 2 * 256)"
    VECTOR = "2 * k + (bits == 8 and k >= min_8bit_size) * (2 * -(k // -256) + 2 * 256)"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        bits: Literal[8, 32] = 32,
        min_8bit_size: int = 4096,
    ):
        self.check_options(settings(locals()))
        super().__init__(
            params, lr, betas, eps, weight_decay, optim_bits=bits, min_8bit_size=min_8bit_size
        )

    @classmethod
    def formula(cls, *, bits: int = 32, **options: object) -> str:
        """Return the formula of the numbers kept per matrix, for the given options."""
        return cls.STATE if bits == 8 else "2 * m * n"

    def get_state_buffer(self, p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a state tensor for `p`: paged on CUDA, ordinary elsewhere.

        Off CUDA bitsandbytes would allocate the same, with a warning.

        Args:
            p: the parameter.
            dtype: of the state tensor.

        Returns:
            Zeros of the shape and on the device of `p`.
        """
        return super().get_state_buffer(p, dtype) if p.is_cuda else torch.zeros_like(p, dtype=dtype)
