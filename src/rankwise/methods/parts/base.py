"""What a fine-tuning method is: something that adapts a model. Loaded by module name, so that no method imports another."""

import importlib
import inspect
from collections.abc import Iterator

import torch
from torch import nn

from rankwise.core.errors import Unsupported

DENSE = ("fp32", "bf16")


class Method:
    """One file in methods/, one frozen dataclass named like the file; its fields are the options.

    `TRAINABLE` says how many numbers train, the head apart, as an expression in r (rank), m and n (rows and columns of a
    matrix of `targets`; the expression is summed over them), d (hidden size), h (layers) and the options by name.
    `MODEL` is the same for what is there once a model. Both are printed in docs/methods.md and counted in the tests.
    """

    TRAINABLE = "0"
    MODEL = "0"
    IDENTITY = True  # before the first step the adapted model answers as the one it was made of
    PROMPT = False  # `rank` virtual tokens stand before the text. Stated in the method's own file
    QUANTIZED = False  # works on a base in 4 or 8 bits: neither trains nor reads its matrices. Stated in the method's own file

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt `model` and set `requires_grad`; touch nothing else.

        `names` is models.names(entry, task): task, modules by role, head, new_head, hidden_size.
        """
        raise NotImplementedError

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Called after optimizer step `step`, which counts from 1."""

    def resume(self, model: nn.Module, step: int) -> None:
        """Where a run goes on after `step`: bring back shapes and modes, which no state dict holds, before that is loaded."""

    def observe(self, model: nn.Module) -> dict[str, float]:
        """What changes while the method trains, for the history: `sparsity_fraction`, `product_effective_rank`."""
        return {}

    def settle(self, model: nn.Module) -> None:
        """Bring the model to the state that most of its training is in: FLOPs are counted there."""

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Why the method cannot do this model, or None."""

    def rate(self, name: str) -> float:
        """What the learning rate of the parameter called `name` is multiplied by."""
        return 1.0

    def merge(self, model: nn.Module) -> nn.Module | None:
        """A model of the base's own modules that answers as the adapted one, or None where there is none."""
        return model


def _class(folder: str, module: str) -> type:
    loaded = importlib.import_module(f"rankwise.{folder}.{module}")
    wanted = module.replace("_", "")
    return next(
        value
        for name, value in vars(loaded).items()
        if name.lower() == wanted and isinstance(value, type)
    )


def method_class(module: str) -> type[Method]:
    """The method of methods/<module>.py."""
    return _class("methods", module)


def load_method(entry: dict) -> Method:
    """The method of a resolved entry (plan.Plan.method)."""
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry["options"].items()
    }
    return method_class(entry["module"])(**fields)


def optimizer_class(module: str) -> type[torch.optim.Optimizer]:
    """The optimizer of optim/<module>.py."""
    return _class("optim", module)


def build_optimizer(
    entry: dict, method: Method, model: nn.Module, names: dict, seed: int
) -> torch.optim.Optimizer:
    """The optimizer of a resolved entry over the trainable parameters of `model`; a profile's entry has no learning rate."""
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry["optimizer"].items()
    }
    optimizer = optimizer_class(options.pop("module"))
    if "seed" in inspect.signature(optimizer).parameters:
        options["seed"] = seed
    rate = entry.get("learning_rate", 0.0)
    return optimizer(_groups(entry, method, model, names, rate), lr=rate, **options)


def unreleased(entry: dict) -> dict:
    """The entry with its optimizer stepping after backward: what profiles build, which have no backward of their own."""
    released = {"release": False} if "release" in entry["optimizer"] else {}
    return {**entry, "optimizer": {**entry["optimizer"], **released}}


def _groups(
    entry: dict, method: Method, model: nn.Module, names: dict, learning_rate: float
) -> list[dict]:
    """Parameter groups by learning rate, and by whether the entry's `dense` exempts them from projection."""
    kinds = {id(p): kind for kind, p in _kinds(model, names)}
    groups: dict[tuple, list[nn.Parameter]] = {}
    for name, param in model.named_parameters():
        if param.requires_grad:
            key = (method.rate(name), kinds.get(id(param)) in entry.get("dense", ()))
            groups.setdefault(key, []).append(param)
    dense = {True: {"dense": True}, False: {}}
    return [
        {"params": params, "lr": rate * learning_rate, **dense[flag]}
        for (rate, flag), params in groups.items()
    ]


def _kinds(model: nn.Module, names: dict) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that an entry may exempt: ("embeddings" or "head", parameter)."""
    for name, module in model.named_modules():
        for param in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                yield "embeddings", param
            elif set(name.split(".")) & set(names["head"]):
                yield "head", param


def adapt(entry: dict, model: nn.Module, names: dict) -> tuple[Method, nn.Module]:
    """The method and the model it has adapted.

    Raises:
        Unsupported: the method cannot do this model, with the reason.
    """
    method = load_method(entry)
    if (kind := entry.get("weights", "fp32")) not in DENSE and not method.QUANTIZED:
        raise Unsupported(
            f"{entry['module']} trains or reads dense matrices, which weights {kind} are not"
        )
    if reason := method.unsupported(model, names):
        raise Unsupported(reason)
    return method, method.prepare(model, names)


def train_only(model: nn.Module, suffixes: tuple[str, ...]) -> None:
    """Make trainable exactly the parameters of modules whose last name is in `suffixes`."""
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in suffixes:
            module.requires_grad_(True)
