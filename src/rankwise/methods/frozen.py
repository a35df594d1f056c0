"""Nothing trains: the model as it was found. The row that every other method must beat."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class Frozen(Method):
    """No options."""

    QUANTIZED = True

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        return model.requires_grad_(False)
