"""Euclidean norms of a model's gradients by group of parameters."""

import torch
from torch import nn

from rankwise.models import build

# Roles of a models entry that belong to attention; all others belong to the feed-forward layer.
ATTENTION_ROLES = frozenset({"query", "key", "value", "output", "attention"})
# What peft puts around a parameter's name.
PEFT_WRAPPERS = ("base_model.model.", "base_layer.", "modules_to_save.default.")


def gradient_norms(model: nn.Module, request: dict) -> dict[str, float]:
    """Norm of the gradients that are there, by group.

    Args:
        model: An adapted model after backward.
        request: Says what the base is.

    Returns:
        Norms of embeddings, attention, feed_forward, norms, head, adapters (parameters that the
        base does not have) and other (base modules without a role in the models entry, like a
        pooler). Groups without gradients are absent.
    """
    shapes = request["shapes"]
    base = build.from_shapes(request["model"], shapes["task"], shapes["classes"], "meta")
    group_by_name = _groups(base, build.names(request["model"], shapes["task"]))
    squares: dict[str, float] = {}
    for name, param in model.named_parameters():
        if param.grad is None:
            continue
        group = group_by_name.get(_base_name(name), "adapters")
        # In fp64: squares of bf16 gradients would underflow or lose digits when summed.
        square = param.grad.double().pow(2).sum().item()
        squares[group] = squares.get(group, 0.0) + square
    return {group: square**0.5 for group, square in squares.items()}


def total_norm(norms: dict[str, float]) -> float:
    """The norm of all groups together."""
    return torch.tensor(list(norms.values()), dtype=torch.float64).norm().item()


def _base_name(name: str) -> str:
    """The name that a parameter has in the base model, before peft wrapped it."""
    for wrapper in PEFT_WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _groups(base: nn.Module, names: dict) -> dict[str, str]:
    """The group of every parameter of the base, by name."""
    groups = {}
    for module_name, module in base.named_modules():
        for param_name, _ in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{param_name}".lstrip(".")
            groups[full_name] = _group(module_name, module, names)
    return groups


def _group(module_name: str, module: nn.Module, names: dict) -> str:
    """The group of a module's own parameters."""
    if set(module_name.split(".")) & set(names["head"]):
        return "head"
    if isinstance(module, nn.Embedding):
        return "embeddings"
    if "norm" in type(module).__name__.lower():
        return "norms"
    role_by_ending = {entry["name"]: role for role, entry in names["modules"].items()}
    endings = [ending for ending in role_by_ending if f".{module_name}".endswith(f".{ending}")]
    if not endings:
        return "other"
    # The longest one: BERT has both output.dense and attention.output.dense.
    role = role_by_ending[max(endings, key=len)]
    return "attention" if role in ATTENTION_ROLES else "feed_forward"
