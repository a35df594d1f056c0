"""AdamW with 8-bit moments: each is kept as codes, scaled by the largest value in its block of 256, and updated in fp32.

Source: Dettmers et al. 2022, arXiv 2110.02861 (block-wise dynamic quantization), by bitsandbytes. Its blocks are 256 numbers,
the paper's 2,048. Tensors of fewer than `min_8bit_size` numbers keep fp32 moments. The paper also keeps the embeddings' moments
in fp32 (its stable embedding layer); here they are 8-bit like all others, which is bitsandbytes' default for a plain embedding.
"""

from collections.abc import Iterable

import bitsandbytes
from torch import Tensor


class AdamW8bit(bitsandbytes.optim.AdamW8bit):
    """bitsandbytes' AdamW8bit with a state that can be allocated ahead, on any device.

    Of the numbers kept, 2mn are codes of a byte; the scales and the two tables of 256 levels have four bytes each. All
    matrices share the tables.
    """

    STATE = "2 * m * n + (m * n >= min_8bit_size) * (2 * -(m * n // -256) + 2 * 256)"
    VECTOR = "2 * k + (k >= min_8bit_size) * (2 * -(k // -256) + 2 * 256)"

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        min_8bit_size: int = 4096,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, min_8bit_size=min_8bit_size)

    @classmethod
    def formula(cls, **options: object) -> str:
        """STATE for the given options."""
        return cls.STATE

    def allocate(self) -> None:
        """Allocate the state of every parameter now, rather than at its first step."""
        for g, group in enumerate(self.param_groups):
            for p, param in enumerate(group["params"]):
                if not self.state[param]:
                    self.init_state(group, param, g, p)
