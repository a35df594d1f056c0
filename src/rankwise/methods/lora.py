"""LoRA: W x + (alpha / r) B A x with A (r, n), B (m, r), B = 0 at the start (Hu et al. 2021, arXiv 2106.09685), by peft."""

from dataclasses import dataclass

from peft import LoraConfig

from rankwise.peft_method import PeftMethod, module_names


@dataclass(frozen=True)
class Lora(PeftMethod):
    """Options; `targets` are roles (query, key, value, ...), which each model's entry maps to its module names."""

    TRAINABLE = "r * (m + n)"

    rank: int
    targets: tuple[str, ...]
    alpha: float = 8.0
    dropout: float = 0.0

    def config(self, names: dict) -> LoraConfig:
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=module_names(self.targets, names),
            modules_to_save=list(names["new_head"]) or None,
        )
