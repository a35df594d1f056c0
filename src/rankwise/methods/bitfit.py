"""BitFit: only the biases train, and a head that is new (Ben Zaken et al. 2021, arXiv 2106.10199, section 3).

Every bias does: of the attention and feed-forward matrices, of the norms, of a pooler or of a pretrained head. How many they
are depends on which matrices of a model have one; Llama's have none.
"""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class BitFit(Method):
    """No options."""

    QUANTIZED = True

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        train_only(model, tuple(names["new_head"]))
        for name, param in model.named_parameters():
            if name.endswith(".bias"):
                param.requires_grad = True
        return model

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        biases = (name.split(".") for name, _ in model.named_parameters() if name.endswith(".bias"))
        return (
            None
            if any(set(parts).isdisjoint(names["head"]) for parts in biases)
            else "the model has no biases"
        )
