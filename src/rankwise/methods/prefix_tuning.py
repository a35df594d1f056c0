"""Prefix tuning: p trained keys and values in every layer; by peft.

Source: Li and Liang 2021, arXiv 2101.00190, eq. 3. `rank` is p. The prefix trains directly, as in
P-Tuning v2 (Liu et al. 2021, arXiv 2110.07602), and not through the paper's MLP (section 4.3). It
starts standard normal: from zero, all virtual tokens of a layer would have the same gradient and
stay alike. With grouped queries a key is narrower than the model, and so is the prefix. The text
may be p tokens shorter than the model's limit.
"""

import inspect
from dataclasses import dataclass

from peft import PrefixTuningConfig
from torch import nn

from rankwise.core.errors import Unsupported
from rankwise.methods.parts.prompt_base import PromptMethod

WRITTEN = {"distilbert": "DistilBERT", "modernbert": "ModernBERT"}  # as their authors write them
# transformers' names of what switches activation checkpointing on.
ENABLING = ("gradient_checkpointing_enable", "activation_checkpointing_enable")


def _refuse_checkpointing(*_args: object, **_kwargs: object) -> None:
    raise Unsupported(
        "prefix tuning and activation checkpointing exclude each other: a layer that runs again "
        "would add its text's keys and values to the prefix twice"
    )


@dataclass(frozen=True)
class PrefixTuning(PromptMethod):
    """Trains keys and values; the rank is the only option."""

    TRAINABLE = "r * m"
    IN_TEXT = False
    targets = ("key", "value")  # the matrices over which TRAINABLE is summed

    rank: int

    def config(self, names: dict) -> PrefixTuningConfig:
        return PrefixTuningConfig(num_virtual_tokens=self.rank)

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Add the keys and values by peft; the model refuses activation checkpointing."""
        prompted = super().prepare(model, names)
        for enable in ENABLING:
            setattr(prompted, enable, _refuse_checkpointing)
        return prompted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Also refuse models that take no keys and values from outside, such as DistilBERT."""
        if reason := super().unsupported(model, names):
            return reason
        forwards = (model.forward, model.base_model.forward)  # peft calls the base of a classifier
        if any("past_key_values" in inspect.signature(forward).parameters for forward in forwards):
            return None
        family = model.config.model_type
        name = WRITTEN.get(family, family)
        return f"transformers' {name} takes no keys and values from outside"
