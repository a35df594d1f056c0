"""Only the layer norms of the first layers train, and a new head."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class FirstNorms(Method):
    """The fields are the options; `layers` is how many layers train."""

    QUANTIZED = True  # works on a base in 4 or 8 bits: its matrices stay as they are

    layers: int = 1

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt the model, and say by `requires_grad` which parameters train."""
        train_only(model, tuple(names["new_head"]))
        stack = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        for layer in stack[: self.layers]:
            for module in layer.modules():
                if "Norm" in type(module).__name__:
                    module.requires_grad_(True)
        return model
