"""Train only the norms, and the head if asked to."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class NormsOnly(Method):
    """LayerNorm weights and biases train, all else is frozen."""

    head: bool = True

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt the model in place."""
        train_only(model, tuple(names["new_head"]) if self.head else ())
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
        return model
