"""Build the optimizer of an entry: ours, or any torch optimizer that knows nothing of Rankwise.

Ours check their options and say what they cannot do (optim/parts/checked.py). Of any other one,
which is called plain here, a rehearsal on one small matrix finds out before a model is touched.
"""

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rankwise.core.errors import Unsupported
from rankwise.methods.parts.classes import as_declared

# The learning rate of a profile, which has none, in a plain optimizer: many refuse 0, and this one
# leaves the weights as they are.
PROFILE_RATE = 1e-12


def optimizer_over(
    cls: type[torch.optim.Optimizer],
    entry: dict,
    groups: list[dict],
    seed: int,
    pairs: Sequence[tuple[Tensor, Tensor, float]] = (),
) -> torch.optim.Optimizer:
    """The optimizer of a resolved entry over parameter groups.

    Args:
        cls: the optimizer's class.
        entry: the resolved entry.
        groups: as `parameter_groups` returns them.
        seed: of the optimizer's sketches and random bases, where it takes one.
        pairs: LoRA's factors (`Method.factors`), where it takes them.

    Raises:
        Unsupported: the optimizer cannot step these parameters in this training, or there are no
            pairs for it.
        ValueError: nothing trains, or options that a parameter cannot have.
    """
    options = dict(entry["optimizer"])
    module = options.pop("module")
    options = as_declared(options, cls)
    arguments = inspect.signature(cls).parameters
    if "seed" in arguments:
        options["seed"] = seed
    if "pairs" in arguments:
        if not pairs:
            raise Unsupported(f"{entry['module']} has no pairs of factors for {cls.__name__}")
        options["pairs"] = pairs
    learning_rate = entry.get("learning_rate", 0.0)
    if not groups or not is_plain(cls):
        return cls(groups, lr=learning_rate, **options)
    if not learning_rate:
        learning_rate = PROFILE_RATE
        groups = [{**group, "lr": group["lr"] or PROFILE_RATE} for group in groups]
    device = groups[0]["params"][0].device
    _rehearse(module, cls, {"lr": learning_rate, **options}, device)
    try:
        return cls(groups, lr=learning_rate, **options)
    except Exception as error:  # it took a matrix, so these parameters are the reason
        raise Unsupported(f"{module}: {one_line(error)}") from error


def is_plain(cls: type[torch.optim.Optimizer]) -> bool:
    """Whether an optimizer was not written for Rankwise: it says nothing of its state or limits."""
    return not hasattr(cls, "check_options")


def step_without_values(optimizer: torch.optim.Optimizer, *losses: Callable[[], Tensor]) -> None:
    """Step an optimizer on the meta device.

    Args:
        optimizer: its parameters have no values.
        *losses: what gives the loss to an optimizer that asks for it.

    Raises:
        Unsupported: a plain optimizer cannot, because its step looks at values or has kernels of
            its own.
    """
    try:
        optimizer.step(*losses)
    except Exception as error:
        cls = type(optimizer)
        if not is_plain(cls):
            raise
        reason = f"cannot step on torch's meta device ({one_line(error)})"
        advice = "so shapes alone do not say what it takes"
        raise Unsupported(f"{cls.__module__}:{cls.__name__}: {reason}, {advice}") from error


def _rehearse(module: str, cls: type, options: dict, device: torch.device) -> None:
    """Let a plain optimizer step a small matrix, so that what it cannot do is said at once.

    Args:
        module: as the entry has it, for messages.
        cls: the class.
        options: with the learning rate.
        device: of the parameters; in place of the meta device, which has no values, the CPU.

    Raises:
        Unsupported: it needs a closure, or cannot step on the gradients of a training.
        ValueError: it refuses the options.
    """
    for argument in list(inspect.signature(cls.step).parameters.values())[1:]:
        if argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD:
            raise Unsupported(
                f"{module}: its step needs {argument.name}, to compute the loss again within a "
                "step; training computes one gradient a step"
            )
    real = torch.device("cpu") if device.type == "meta" else device
    cuda = [real] if real.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.device(real):
        matrix = nn.Parameter(torch.eye(4))
        matrix.grad = torch.ones(4, 4)
        try:
            rehearsed = cls([{"params": [matrix]}], **options)
        except Exception as error:
            raise ValueError(f"{module}: {one_line(error)}") from error
        try:
            rehearsed.step()
        except Exception as error:
            raise Unsupported(f"{module}: cannot step: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The type of an error, and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
