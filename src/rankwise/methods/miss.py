"""MiSS: W' = W + E, with E (m, n) one block D' (m, r) repeated along the columns; by peft.

Source: Kang and Yin 2024, arXiv 2409.15371. As a product: W' x = W x + D' s, with s (r) the sum of
x over its pieces of length r. D (r, m) starts at zero.

variant bat: each r x r tile T of W becomes T + T D_i + D_i, with one D_i (r, r) for each of the m /
r rows of tiles, so the update depends on W and has high rank. variant mini: D is `mini_rank` wide
and repeats along the rows, too.
"""

from dataclasses import dataclass
from typing import Literal

from peft import MissConfig
from torch import nn

from rankwise.methods.parts.peft_base import PeftMethod, modules_of

INITS = {"balance": True, "bat": "bat", "mini": "mini"}  # peft's names of the variants


@dataclass(frozen=True)
class Miss(PeftMethod):
    """Trains D; `mini_rank` belongs to the variant mini alone."""

    QUANTIZED = True
    TRAINABLE = "r * (mini_rank if variant == 'mini' else m)"
    LINEAR_ONLY = True

    rank: int
    targets: tuple[str, ...]
    variant: Literal["balance", "bat", "mini"] = "balance"
    mini_rank: int = 1
    dropout: float = 0.0

    def config(self, names: dict) -> MissConfig:
        return MissConfig(
            r=self.rank,
            mini_r=self.mini_rank,
            miss_dropout=self.dropout,
            init_weights=INITS[self.variant],
        )

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Also refuse targets whose sides the variant's tiles do not divide."""
        if reason := super().unsupported(model, names):
            return reason
        for name, module in modules_of(model, self.targets, names).items():
            m, n = module.weight.shape
            if self.variant == "bat" and (m % self.rank or n % self.rank):
                return f"{name} is {m} x {n}: not whole tiles of {self.rank} x {self.rank}"
            if self.variant == "mini" and m % self.mini_rank:
                return f"{name} has {m} rows: no multiple of mini_rank {self.mini_rank}"
        return None
