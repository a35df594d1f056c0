"""What one of several processes holds, from the ledger of one that trains its batch alone.

DDP: the whole model, and buckets in which gradients are sent; together they are as large as the
gradients. Where gradients are averaged afterwards (training/distribution.py), there are none.

FSDP2: the n-th part of weights, gradients and optimizer state, and what is gathered at a time: the
parameters of two layers, since the next one is gathered while a layer computes, and of one layer
the whole gradients and the copy of them that is sent. That is the most there can be at a time, so
the peak is an upper bound.
"""

import torch
from torch import nn

from rankwise.measure import step
from rankwise.methods.parts.base import Method, optimizer_class
from rankwise.optim.parts.waiting import trains

SHARED = ("weights", "gradients", "optimizer_state", "projection")  # kinds that FSDP2 divides


def added(request: dict, columns: dict[str, int | str]) -> dict[str, int]:
    """What several processes add to each kind of bytes of one process; negative where they save.

    Args:
        request: Of a ledger or a prediction; its batch is that of one process.
        columns: Of the ledger's peak, with the bytes of each kind.

    Returns:
        Kind -> bytes; nothing with one process.
    """
    count = request.get("processes", 1)
    if count == 1:
        return {}
    method, model, _ = step.adapted(request, "meta")
    if request["sharding"] == "ddp":
        return {"temporary": _bytes(model, trained=True) if _uses_ddp(request, method) else 0}
    saved = {kind: -columns[f"{kind}_bytes"] * (count - 1) // count for kind in SHARED}
    groups = _groups(model)
    largest = max(_bytes(*group) for group in groups)
    largest_trained = max(_bytes(*group, trained=True) for group in groups)
    return {**saved, "temporary": 2 * largest + 2 * largest_trained}


def with_added(columns: dict[str, int | str], extra: dict[str, int]) -> dict[str, int | str]:
    """The columns of a ledger's peak with what `added` returned; the parts still add up."""
    changed = {f"{kind}_bytes": columns[f"{kind}_bytes"] + size for kind, size in extra.items()}
    total = sum(extra.values())
    peaks = ("peak_bytes", "peak_allocated_bytes", "peak_reserved_bytes")
    changed |= {name: columns[name] + total for name in peaks if name in columns}
    return {**columns, **changed}


def _uses_ddp(request: dict, method: Method) -> bool:
    """Whether torch's DDP sends the gradients; as training/distribution.py decides."""
    optimizer = request["method"]["optimizer"]
    cls = optimizer_class(optimizer["module"])
    averages = getattr(cls, "BY_BLOCK", False) or getattr(cls, "FORWARD_ONLY", False)
    changes_parameters = type(method).after_step is not Method.after_step
    return not (optimizer.get("release") or averages or changes_parameters)


def _groups(model: nn.Module) -> list[list[nn.Module]]:
    """The modules that FSDP2 gathers at a time: each layer, and the parameters outside of these."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inner = {id(child) for each in lists for child in each.modules() if child is not each}
    layers = [layer for each in lists if id(each) not in inner for layer in each]
    in_layers = {id(module) for layer in layers for module in layer.modules()}
    rest = [module for module in model.modules() if id(module) not in in_layers]
    return [*([layer] for layer in layers), _without_children(rest)]


def _without_children(modules: list[nn.Module]) -> list[nn.Module]:
    """The parameters of these modules' own, as modules without children."""
    own = []
    for module in modules:
        holder = nn.ParameterList(module.parameters(recurse=False))
        own.append(holder)
    return own


def _bytes(*modules: nn.Module, trained: bool = False) -> int:
    """Bytes of the parameters of modules, each once; of those that train, if that is asked for."""
    params: dict[int, torch.Tensor] = {}
    for module in modules:
        for param in module.parameters():
            if trains(param) or not trained:
                params[id(param)] = param
    return sum(param.numel() * param.element_size() for param in params.values())
