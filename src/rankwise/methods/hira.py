"""HiRA: W' = W * (1 + B A), elementwise, with A (r, n), B (m, r); by peft.

Source: Huang et al. 2025, ICLR, eq. 6.
The update W * (B A) has rank up to r rank(W). With G the gradient of the loss with respect to W':
gA = B'(W * G), gB = (W * G) A'. An entry of W that is zero stays zero. There is no factor alpha /
r. The factors are named as in LoRA, A Kaiming-uniform and B = 0; the paper calls them B and A. The
update is as small as W is, so the learning rate is several times LoRA's.

Published system B calls a LoRA of rank 32 "HiRA"; this file is the paper's method. peft computes
the frozen product W x and the update's product apart, that is, two dense products a matrix, where
one with W * (1 + B A) would be enough.
"""

from dataclasses import dataclass

from peft import HiraConfig

from rankwise.methods.parts.peft_base import PeftMethod


@dataclass(frozen=True)
class Hira(PeftMethod):
    """Trains the factors of the update; the paper adapts query, key, value, up and down."""

    QUANTIZED = True
    TRAINABLE = "r * (m + n)"

    rank: int
    targets: tuple[str, ...]
    dropout: float = 0.0

    def config(self, names: dict) -> HiraConfig:
        return HiraConfig(r=self.rank, hira_dropout=self.dropout)
