"""Prefix tuning: p trained keys and values in every layer; by peft.

Source: Li and Liang 2021, arXiv 2101.00190, eq. 3. `rank` is p. The prefix trains directly, as in
P-Tuning v2 (Liu et al. 2021, arXiv 2110.07602), and not through the paper's MLP (section 4.3). It
starts standard normal: from zero, all virtual tokens of a layer would have the same gradient and
stay alike. With grouped queries a key is narrower than the model, and so is the prefix. The text
may be p tokens shorter than the model's limit.
"""

from dataclasses import dataclass

from peft import PrefixTuningConfig
from torch import nn

from rankwise.methods.parts.prompt_base import PromptMethod


@dataclass(frozen=True)
class PrefixTuning(PromptMethod):
    """Trains keys and values; the rank is the only option."""

    TRAINABLE = "r * m"
    IN_TEXT = False
    targets = ("key", "value")  # the matrices over which TRAINABLE is summed

    rank: int

    def config(self, names: dict) -> PrefixTuningConfig:
        return PrefixTuningConfig(num_virtual_tokens=self.rank)

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Also refuse DistilBERT, which takes no keys and values from outside."""
        if reason := super().unsupported(model, names):
            return reason
        if model.config.model_type == "distilbert":
            return "transformers' DistilBERT takes no keys and values from outside"
        return None
