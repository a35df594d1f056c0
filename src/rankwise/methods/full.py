"""Full fine-tuning: every parameter trains. With a projected optimizer it is GaLore, rSVD and their kin."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Full:
    """No options."""

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        return model.requires_grad_(True)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to keep up."""

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        return None
