"""(IA)3: trained vectors rescale keys, values and feed-forward activations; by peft.

Source: Liu et al. 2022, arXiv 2205.05638. Key and value: y = l * (W x), with l (m). Feed-forward: y
= W (l * x), with l (n), on the matrix that leads back to the model's width. Every l starts at one.
"""

from dataclasses import dataclass

from peft import IA3Config, PeftConfig
from torch import nn

from rankwise.methods.parts.peft_base import PeftMethod, modules_of


@dataclass(frozen=True)
class Ia3(PeftMethod):
    """Trains the vectors: at the input of targets in `feed_forward`, at the output of others."""

    QUANTIZED = True
    TRAINABLE = "n if role in feed_forward else m"

    targets: tuple[str, ...] = ("key", "value", "down")
    feed_forward: tuple[str, ...] = ("down",)

    def config(self, names: dict) -> IA3Config:
        return IA3Config(feedforward_modules=[])

    def resolved(self, model: nn.Module, names: dict) -> PeftConfig:
        """Also tells peft the full names of the modules that are scaled at their input."""
        config = super().resolved(model, names)
        config.feedforward_modules = set(modules_of(model, self.feed_forward, names))
        return config
