"""AdamW with 8-bit moments, by bitsandbytes.

Source: Dettmers et al. 2022, arXiv 2110.02861 (block-wise dynamic quantization). A moment is kept
as codes of one byte, scaled by the largest value in its block, and updated in fp32. Where
bitsandbytes differs from the paper: its blocks are 256 numbers, the paper's 2,048. The paper keeps
the embeddings' moments in fp32 (its stable embedding layer); here they are 8-bit like all others,
which is bitsandbytes' default for a plain embedding.
"""

import bitsandbytes
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.bitsandbytes_base import BitsandbytesBase
from rankwise.optim.parts.checked import settings


class AdamW8bit(BitsandbytesBase, bitsandbytes.optim.AdamW8bit):
    """bitsandbytes' AdamW8bit, whose state can also be allocated ahead and on any device.

        m <- b1 m + (1 - b1) G
        v <- b2 v + (1 - b2) G^2
        W <- (1 - lr * weight_decay) W - lr * m_hat / (sqrt(v_hat) + eps)
        m, v <- nearest of 256 levels, times the largest value in the block

    Of the numbers kept, 2mn are codes of one byte. The scales, one per 256 numbers, and the two
    tables of 256 levels have four bytes per number. All matrices share the tables.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        betas: decays of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.
        min_8bit_size: tensors of fewer numbers keep fp32 moments.

    References:
        Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization, arXiv 2110.02861.

    Example:
        >>> optimizer = AdamW8bit(model.parameters(), lr=1e-5)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    NOT_BY_GROUP = frozenset({"min_8bit_size"})
    STATE = "2 * m * n + (m * n >= min_8bit_size) * (2 * -(m * n // -256) + 2 * 256)"
    VECTOR = "2 * k + (k >= min_8bit_size) * (2 * -(k // -256) + 2 * 256)"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        min_8bit_size: int = 4096,
    ):
        self.check_options(settings(locals()))
        super().__init__(params, lr, betas, eps, weight_decay, min_8bit_size=min_8bit_size)

    @classmethod
    def formula(cls, **options: object) -> str:
        """Return the formula of the numbers kept per matrix, for the given options."""
        return cls.STATE
