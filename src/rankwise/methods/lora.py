"""LoRA: W x + (alpha / r) B A x with A (r, n), B (m, r), B = 0 at the start (Hu et al. 2021, arXiv 2106.09685), by peft.

The head of a classifier trains in full beside the adapters; a language model's head stays frozen.
"""

from dataclasses import dataclass

from peft import LoraConfig, get_peft_model
from torch import nn


@dataclass(frozen=True)
class Lora:
    """Options; `targets` are roles (query, key, value, ...), which each model's entry maps to its module names."""

    rank: int
    targets: tuple[str, ...]
    alpha: float = 8.0
    dropout: float = 0.0

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=[names["modules"][target]["name"] for target in self.targets],
            modules_to_save=list(names["new_head"]) or None,
        )
        return get_peft_model(model, settings)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to keep up."""

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        return None
