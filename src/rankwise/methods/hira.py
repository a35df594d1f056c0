"""HiRA: W' = W * (1 + B A), elementwise, with A (r, n), B (m, r) (Huang et al. 2025, ICLR, eq. 6); by peft.

The update W * (B A) has rank up to r rank(W). With G the gradient of the loss in W': gA = B'(W * G), gB = (W * G) A'. An
entry of W that is zero stays zero. There is no factor alpha / r. The factors are named as in LoRA: A Kaiming-uniform, B =
0, which in the paper's names is B and A. The update is as small as W is, so the learning rate is several times LoRA's.

Published system B calls a LoRA of rank 32 "HiRA"; this is the paper's. peft keeps the frozen product W x and the update's
apart: two dense products a matrix, where one with W * (1 + B A) would do.
"""

from dataclasses import dataclass

from peft import HiraConfig

from rankwise.methods.parts.peft_base import PeftMethod


@dataclass(frozen=True)
class Hira(PeftMethod):
    """Options; the paper adapts query, key, value, up and down."""

    QUANTIZED = True
    TRAINABLE = "r * (m + n)"

    rank: int
    targets: tuple[str, ...]
    dropout: float = 0.0

    def config(self, names: dict) -> HiraConfig:
        return HiraConfig(r=self.rank, hira_dropout=self.dropout)
