"""Nothing trains: the model as it was found. The row that every other method must beat."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Frozen:
    """No options."""

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        return model.requires_grad_(False)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to keep up."""

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        return None
