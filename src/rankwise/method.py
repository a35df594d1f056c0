"""What a fine-tuning method is: something that adapts a model. Loaded by module name, so that no method imports another."""

import importlib
from typing import Protocol

import torch
from torch import nn


class Method(Protocol):
    """One file in methods/, one frozen dataclass named like the file; its fields are the options."""

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt `model` and set `requires_grad`; touch nothing else. `names` has `modules` and `head` of the model's entry."""

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called after optimizer step `step`, which counts from 1."""

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Why the method cannot do this model, or None."""


def _settings(folder: str, module: str, options: dict) -> object:
    loaded = importlib.import_module(f"rankwise.{folder}.{module}")
    wanted = module.replace("_", "")
    name = next(name for name in vars(loaded) if name.lower() == wanted and not name.islower())
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return getattr(loaded, name)(**fields)


def load_method(entry: dict) -> Method:
    """The method of a resolved entry (plan.Plan.method)."""
    return _settings("methods", entry["module"], entry["options"])


def build_optimizer(entry: dict, model: nn.Module, seed: int) -> torch.optim.Optimizer:
    """The optimizer of a resolved entry over the trainable parameters of `model`; a profile's entry has no learning rate."""
    options = {key: value for key, value in entry["optimizer"].items() if key != "module"}
    settings = _settings("optim", entry["optimizer"]["module"], options)
    trainable = [param for param in model.parameters() if param.requires_grad]
    return settings.build(trainable, entry.get("learning_rate", 0.0), seed)


def adapt(entry: dict, model: nn.Module, names: dict) -> tuple[Method, nn.Module]:
    """The method and the model it has adapted.

    Raises:
        Unsupported: the method cannot do this model, with the reason.
    """
    method = load_method(entry)
    if reason := method.unsupported(model, names):
        raise Unsupported(reason)
    return method, method.prepare(model, names)


class Unsupported(ValueError):
    """A method cannot do a model; the message is the reason."""


def train_only(model: nn.Module, suffixes: tuple[str, ...]) -> None:
    """Make trainable exactly the parameters of modules whose last name is in `suffixes`."""
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in suffixes:
            module.requires_grad_(True)
