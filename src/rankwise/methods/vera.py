"""VeRA: W' = W + diag(b) B diag(d) A, with b (m) and d (r) trained; by peft.

Source: Kopiczko et al. 2023, arXiv 2310.11454, eq. 2. A (r, n) and B (m, r) are Kaiming-uniform,
frozen, and shared by all matrices; smaller matrices use a corner of them. At the start b = 0 and d
= `d_initial`. The seed of A and B comes from torch's global generator, because peft's own is 0 in
every run.
"""

from dataclasses import dataclass

import torch
from peft import VeraConfig

from rankwise.methods.parts.peft_base import PeftMethod


@dataclass(frozen=True)
class Vera(PeftMethod):
    """Trains b and d.

    Ranks are larger than LoRA's (256 to 1024 in the paper), because one more costs one number a
    matrix.
    """

    QUANTIZED = True
    TRAINABLE = "r + m"

    rank: int
    targets: tuple[str, ...]
    d_initial: float = 0.1
    dropout: float = 0.0

    def config(self, names: dict) -> VeraConfig:
        return VeraConfig(
            r=self.rank,
            vera_dropout=self.dropout,
            d_initial=self.d_initial,
            projection_prng_key=int(torch.randint(2**31, (), device="cpu")),
        )
