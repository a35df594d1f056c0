"""OFT: W' = W R, with R orthogonal and block-diagonal (Qiu et al. 2023, arXiv 2306.07280); by peft.

Each block is R = (I - Q)(I + Q)^-1 with Q (b, b) skew-symmetric and zero at the start: b (b - 1) /
2 numbers. `rank` is the side b, so that a larger rank is more freedom, as in other methods; the
paper's r is the number of blocks, n / b. The rows of W keep their lengths and the angles between
them. (The paper's W is our W'.)

`neumann_terms` = k replaces the inverse by a series (OFTv2, Qiu et al. 2025, arXiv 2506.19847),
which is cheaper and only nearly orthogonal: R = (I + Q)(I + Q + ... + Q^(k-2)), with peft's turned
sign of Q. None is the exact inverse; peft's own default is 5. `share` gives all blocks of a matrix
one Q.
"""

from dataclasses import dataclass

from peft import OFTConfig
from torch import nn

from rankwise.methods.parts.peft_base import PeftMethod, modules_of


@dataclass(frozen=True)
class Oft(PeftMethod):
    """Trains Q; `dropout` is the share of blocks that are the identity in a training step."""

    QUANTIZED = True
    TRAINABLE = "(r if share else n) * (r - 1) // 2"
    LINEAR_ONLY = True

    rank: int
    targets: tuple[str, ...]
    neumann_terms: int | None = None
    share: bool = False
    dropout: float = 0.0

    def config(self, names: dict) -> OFTConfig:
        return OFTConfig(
            r=0,  # peft derives the number of blocks from their side
            oft_block_size=self.rank,
            use_cayley_neumann=self.neumann_terms is not None,
            num_cayley_neumann_terms=self.neumann_terms or 0,
            block_share=self.share,
            module_dropout=self.dropout,
        )

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Also refuse a rank below 2, and a rank that does not divide a target's columns."""
        if reason := super().unsupported(model, names):
            return reason
        if self.rank < 2:
            return f"a block of side {self.rank} cannot rotate"
        for name, module in modules_of(model, self.targets, names).items():
            columns = module.in_features
            if columns % self.rank:
                return (
                    f"{name} has {columns} columns: no whole number of blocks of side {self.rank}"
                )
        return None
