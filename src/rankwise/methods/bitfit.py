"""BitFit: only the biases train, and a new head.

Source: Ben Zaken et al. 2021, arXiv 2106.10199, section 3.
All biases train: of the attention and feed-forward matrices, of the norms, of a pooler and of a
pretrained head. How many there are depends on the model; Llama's matrices have none.
"""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class BitFit(Method):
    """Trains the biases; no options."""

    QUANTIZED = True
    SHARDED = True
    ADDS_PARAMETERS = False

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Make the biases and a new head trainable."""
        train_only(model, tuple(names["new_head"]))
        for name, param in model.named_parameters():
            if name.endswith(".bias"):
                param.requires_grad = True
        return model

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse a model without biases outside its head."""
        for name, _ in model.named_parameters():
            is_in_head = set(name.split(".")) & set(names["head"])
            if name.endswith(".bias") and not is_in_head:
                return None
        return "the model has no biases"
