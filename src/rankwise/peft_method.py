"""What the methods that peft implements share: a configuration goes in, an adapted model comes out.

The head of a classifier trains in full beside the adapters; a language model's head stays frozen.
"""

from peft import PeftConfig, get_peft_model
from torch import nn

from rankwise.method import Method

TASK_TYPES = {"classification": "SEQ_CLS", "language_modelling": "CAUSAL_LM"}


def module_names(targets: tuple[str, ...], names: dict) -> list[str]:
    """The model's module names of the roles in `targets`."""
    return [names["modules"][target]["name"] for target in targets]


class PeftMethod(Method):
    """A method whose `config` is peft's."""

    def config(self, names: dict) -> PeftConfig:
        """peft's configuration for a model with these names (models.names)."""
        raise NotImplementedError

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        return get_peft_model(model, self.config(names))

    def merge(self, model: nn.Module) -> nn.Module | None:
        return model.merge_and_unload()
