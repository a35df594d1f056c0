"""A method with a mistake in its code."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class Typo(Method):
    """Calls a function that does not exist."""

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Fail."""
        model.freeze_all(names)
        return model
