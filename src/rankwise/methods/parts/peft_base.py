"""The base of methods that peft implements: a configuration goes in, an adapted model comes out.

The head of a classifier trains in full beside the adaptation; a language model's head stays frozen.
"""

from peft import PeftConfig, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankwise.core.targets import ALL_LINEAR
from rankwise.methods.parts.base import Method
from rankwise.models.storage import dequantize

LINEAR = (nn.Linear, Conv1D)
IGNORED = -100  # the label of tokens that do not count in the loss


def modules_of(model: nn.Module, roles: tuple[str, ...], names: dict) -> dict[str, nn.Module]:
    """The modules that have one of `roles` (query, key, value, ...), or all linear ones.

    The model's entry gives a role the end of a module's name, in whole components. Where two of
    these endings fit, the longer one decides: BERT's `attention.output.dense` is not its
    `output.dense`.

    Args:
        model: the model to search.
        roles: of the modules to find; `all-linear` stands for all linear modules but the output
            layer and a new head, as in peft.
        names: from `models.build.names`.

    Returns:
        The modules by full name, in the model's order.
    """
    if ALL_LINEAR in roles:
        return _linear_modules(model, names)
    named = model.named_modules()
    return {name: module for name, module in named if role_of(name, names) in roles}


def role_of(module: str, names: dict) -> str | None:
    """The role of a module, or None if the model's entry gives it none.

    Args:
        module: the module's full name.
        names: from `models.build.names`.
    """
    role_by_ending = {entry["name"]: role for role, entry in names["modules"].items()}
    endings = [ending for ending in role_by_ending if f".{module}".endswith(f".{ending}")]
    return role_by_ending[max(endings, key=len)] if endings else None


def _linear_modules(model: nn.Module, names: dict) -> dict[str, nn.Module]:
    """The linear modules of a model but its output layer and a new head, by full name."""
    output = model.get_output_embeddings()
    modules = {}
    for name, module in model.named_modules():
        in_new_head = bool(set(name.split(".")) & set(names["new_head"]))
        if isinstance(module, LINEAR) and module is not output and not in_new_head:
            modules[name] = module
    return modules


class PeftMethod(Method):
    """A method whose adaptation is a configuration of peft; a subclass has the option `targets`.

    Attributes:
        LINEAR_ONLY: peft has the method for nn.Linear, not for the Conv1D layers of GPT-2.
    """

    LINEAR_ONLY = False

    def config(self, names: dict) -> PeftConfig:
        """The configuration for peft, without the modules to adapt and the head to train.

        Args:
            names: from `models.build.names`.

        Raises:
            NotImplementedError: a method must define it.
        """
        raise NotImplementedError

    def resolved(self, model: nn.Module, names: dict) -> PeftConfig:
        """`config` with this model's modules filled in.

        Args:
            model: the base, before it is adapted.
            names: from `models.build.names`.
        """
        config = self.config(names)
        config.target_modules = set(modules_of(model, self.targets, names))
        config.modules_to_save = list(names["new_head"]) or None
        if hasattr(config, "fan_in_fan_out"):
            config.fan_in_fan_out = self.has_conv1d(model, names)
        return config

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt the model by peft's `get_peft_model`, which wraps it."""
        return get_peft_model(model, self.resolved(model, names))

    def has_conv1d(self, model: nn.Module, names: dict) -> bool:
        """Whether a target is one of GPT-2's matrices, which are kept as (in, out).

        Args:
            model: the base, before it is adapted.
            names: from `models.build.names`.
        """
        targets = modules_of(model, self.targets, names).values()
        return any(isinstance(module, Conv1D) for module in targets)

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse Conv1D targets where peft has the method for nn.Linear only."""
        if self.LINEAR_ONLY and self.has_conv1d(model, names):
            return "peft has this method for nn.Linear; the targets of this model are Conv1D"
        return None

    def held_by_peft(self, names: dict) -> bool:
        """True: the adaptation is peft's, and a new head is among peft's `modules_to_save`."""
        return True

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Dequantize the base, put the trained head in its place, then merge by peft.

        peft would look for a weight of the head itself, and a head such as RoBERTa's has layers.
        """
        model = dequantize(model)
        for name, module in list(model.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):
                parent, _, last = name.rpartition(".")
                head = module.unload_and_optionally_merge_module(True, False, None)
                setattr(model.get_submodule(parent), last, head)
        return model.merge_and_unload()
