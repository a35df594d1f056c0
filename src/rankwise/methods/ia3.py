"""(IA)3: trained vectors rescale keys, values and feed-forward activations (Liu et al. 2022, arXiv 2205.05638); by peft.

Key and value: y = l * (W x), l (m). Feed-forward: y = W (l * x), l (n), on the matrix that leads back. Every l starts at one.
"""

from dataclasses import dataclass

from peft import IA3Config, PeftConfig
from torch import nn

from rankwise.methods.parts.peft_base import PeftMethod, modules_of


@dataclass(frozen=True)
class Ia3(PeftMethod):
    """Options; of `targets`, those in `feed_forward` are scaled on the input, the others on the output."""

    QUANTIZED = True
    TRAINABLE = "n if role in feed_forward else m"

    targets: tuple[str, ...] = ("key", "value", "down")
    feed_forward: tuple[str, ...] = ("down",)

    def config(self, names: dict) -> IA3Config:
        return IA3Config(feedforward_modules=[])

    def resolved(self, model: nn.Module, names: dict) -> PeftConfig:
        """Names, for peft, those of the modules that are scaled on the input."""
        config = super().resolved(model, names)
        config.feedforward_modules = set(modules_of(model, self.feed_forward, names))
        return config
