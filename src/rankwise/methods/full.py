"""Full fine-tuning: every parameter trains.

With an optimizer that projects gradients it is GaLore, rSVD and related methods.
"""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class Full(Method):
    """Trains everything; no options."""

    SHARDED = True
    KEEPS = "model"
    ADDS_PARAMETERS = False

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Make every parameter trainable."""
        return model.requires_grad_(True)
