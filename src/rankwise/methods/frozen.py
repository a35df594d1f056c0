"""Nothing trains: the model as it was found. Every other method must beat this row."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class Frozen(Method):
    """Trains nothing; no options."""

    QUANTIZED = True
    KEEPS = "nothing"
    ADDS_PARAMETERS = False

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Freeze every parameter."""
        return model.requires_grad_(False)
