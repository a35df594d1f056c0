"""Prefix tuning: p trained keys and values in every layer (Li and Liang 2021, arXiv 2101.00190, eq. 3); by peft.

`rank` is p. The prefix is trained itself, as in P-Tuning v2 (Liu et al. 2021, arXiv 2110.07602), not through the paper's MLP
(section 4.3), and starts standard normal: from zero, all virtual tokens of a layer would have one gradient and stay alike.
With grouped queries a key is narrower than the model, and so is the prefix. The text may be p tokens shorter than the limit.
"""

from dataclasses import dataclass

from peft import PrefixTuningConfig
from torch import nn

from rankwise.methods.parts.peft_base import PromptMethod


@dataclass(frozen=True)
class PrefixTuning(PromptMethod):
    """One option, the rank."""

    TRAINABLE = "r * m"
    QUANTIZED = True
    PROMPT = True
    IN_TEXT = False
    targets = ("key", "value")

    rank: int

    def config(self, names: dict) -> PrefixTuningConfig:
        return PrefixTuningConfig(num_virtual_tokens=self.rank)

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        if reason := super().unsupported(model, names):
            return reason
        if model.config.model_type == "distilbert":
            return "transformers' DistilBERT takes no keys and values from outside"
        return None
