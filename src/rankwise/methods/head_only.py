"""Linear probing: only the task's head trains.

For a language model the head is the output embedding, whether it is tied to the input embedding or
not.
"""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class HeadOnly(Method):
    """Trains the head; no options."""

    QUANTIZED = True
    SHARDED = True
    ADDS_PARAMETERS = False

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Make the head trainable."""
        train_only(model, tuple(names["head"]))
        return model

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse a model without a module of the head."""
        modules = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        return None if modules & set(names["head"]) else f"no head among {', '.join(names['head'])}"
