"""A method that refuses every model, with a sentence."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class NoSuchLayer(Method):
    """Looks for a layer that no model has."""

    layer: str = "top"

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Refuse the model."""
        allowed = f"those of {type(model).__name__}: {', '.join(names)}"
        raise ValueError(f"options.layer: got {self.layer!r}, allowed: {allowed}")
