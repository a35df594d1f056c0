"""AdamW whose moments lie in pages that the driver moves to the host when the GPU's memory is short.

Source: QLoRA (Dettmers et al. 2023, arXiv 2305.14314, section 3, Paged Optimizers), by bitsandbytes. The arithmetic is AdamW's,
with fp32 moments or the 8-bit ones of adamw_8bit. Paged are moments of 100,000 numbers or more, and only on CUDA; on a CPU the
moments are ordinary tensors (bitsandbytes warns there, we say it here). The number of bytes is the same either way.
"""

from collections.abc import Iterable
from typing import Literal

import bitsandbytes
import torch
from torch import Tensor

from rankwise.optim.adamw_8bit import AdamW8bit


class PagedAdamW(bitsandbytes.optim.PagedAdamW):
    """bitsandbytes' PagedAdamW with a state that can be allocated ahead, on any device."""

    STATE = "2 * m * n + (bits == 8 and m * n >= min_8bit_size) * (2 * -(m * n // -256) + 2 * 256)"
    VECTOR = "2 * k + (bits == 8 and k >= min_8bit_size) * (2 * -(k // -256) + 2 * 256)"

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        bits: Literal[8, 32] = 32,
        min_8bit_size: int = 4096,
    ):
        super().__init__(
            params, lr, betas, eps, weight_decay, optim_bits=bits, min_8bit_size=min_8bit_size
        )

    allocate = AdamW8bit.allocate

    @classmethod
    def formula(cls, *, bits: int = 32, **options: object) -> str:
        """STATE for the given options."""
        return cls.STATE if bits == 8 else "2 * m * n"

    def get_state_buffer(self, p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pages are CUDA's; elsewhere an ordinary tensor."""
        return super().get_state_buffer(p, dtype) if p.is_cuda else torch.zeros_like(p, dtype=dtype)
