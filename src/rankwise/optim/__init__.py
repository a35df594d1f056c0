"""`from rankwise.optim import Fira`: the optimizer of fira.py, loaded when it is asked for, so that no file depends on all."""

import importlib
import pkgutil

import torch


def __getattr__(name: str) -> type:
    if name == name.lower():  # a module, which the import system finds by itself
        raise AttributeError(name)
    for module in pkgutil.iter_modules(__path__):
        if module.name.replace("_", "") == name.lower() and (found := _class(module.name, name)):
            return found
    raise AttributeError(f"rankwise.optim has no {name}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    found = (
        _class(module.name, module.name.replace("_", ""))
        for module in pkgutil.iter_modules(__path__)
    )
    return sorted(optimizer.__name__ for optimizer in found if optimizer)


def _class(module: str, name: str) -> type | None:
    """The optimizer named like its file, whatever the case."""
    values = vars(importlib.import_module(f"{__name__}.{module}")).items()
    optimizers = (
        v
        for k, v in values
        if k.lower() == name.lower()
        and isinstance(v, type)
        and issubclass(v, torch.optim.Optimizer)
    )
    return next(optimizers, None)
