"""Full fine-tuning: every parameter trains. With a projected optimizer it is GaLore, rSVD and their kin."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class Full(Method):
    """No options."""

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        return model.requires_grad_(True)
