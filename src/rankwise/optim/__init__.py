"""Memory-efficient optimizers, usable alone as ordinary `torch.optim` optimizers.

    from rankwise.optim import Fira
    optimizer = Fira(model.parameters(), lr=1e-4, rank=128)

Each optimizer is in the module of its name: `LDAdam` in ldadam.py, `AdamW8bit` in adamw_8bit.py. It
is imported when it is first used, for two reasons. Only the 8-bit and paged ones need bitsandbytes.
And a result that is digested with the sources behind it depends on its own optimizer, not on all of
them.
"""

import difflib
import importlib
import pkgutil

import torch


def __getattr__(name: str) -> type[torch.optim.Optimizer]:
    """Import the optimizer `name` from its module."""
    if name == name.lower():  # not a class but a module, which the import system finds by itself
        raise AttributeError(name)
    for module in _modules():
        if module.replace("_", "") == name.lower():
            optimizer = _optimizer(module)
            if optimizer is not None:
                return optimizer
    allowed = __dir__()
    nearest = difflib.get_close_matches(name, allowed, n=1)
    hint = f" (nearest: {nearest[0]!r})" if nearest else ""
    raise AttributeError(f"rankwise.optim: got {name!r}, allowed: {', '.join(allowed)}{hint}")


def __dir__() -> list[str]:
    """Return the names of all optimizers that can be imported here."""
    names = []
    for module in _modules():
        try:
            optimizer = _optimizer(module)
        except ModuleNotFoundError:  # bitsandbytes, of the extra rankwise[quantized]
            continue
        if optimizer is not None:
            names.append(optimizer.__name__)
    return sorted(names)


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _optimizer(module: str) -> type[torch.optim.Optimizer] | None:
    """Return the optimizer named like its module, whatever the case, or None."""
    class_name = module.replace("_", "")
    for name, value in vars(importlib.import_module(f"{__name__}.{module}")).items():
        is_class = name.lower() == class_name and isinstance(value, type)
        if is_class and issubclass(value, torch.optim.Optimizer):
            return value
    return None
