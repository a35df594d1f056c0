"""The life of a training process in phases, which observers of memory watch.

A process loads the model, prepares it (store, adapt, build the optimizer), takes two steps and
evaluates. The first step creates the optimizer's state and computes its first bases. The second one
is like all later steps between refreshes. An optimizer that steps from losses (MeZO) has no
backward pass: its whole step, with its perturbations, is the forward phase.

With several micro-batches an update, each has its forward and its backward phase, and gradients
stay alive in between. Two of them are run (MICRO_BATCHES): a third one finds the same storages
alive as the second did.
"""

from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn

from rankwise.measure import other_loops, step
from rankwise.measure.step import Step

STEPS = ("first_forward", "first_backward", "first_update", "forward", "backward", "update")
BUILDING = ("load", "prepare")
MICRO_BATCHES = 2  # at most so many of an update are run


class Observer(Protocol):
    """What `run` tells whoever watches memory."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Everything within belongs to the phase, which may come several times."""

    def watch(self, model: nn.Module) -> None:
        """Called with the adapted model, before its optimizer is built."""

    def built(self, training_step: Step) -> None:
        """Called between prepare and the first step."""

    def see_gradients(self, training_step: Step) -> None:
        """Called after each backward pass."""

    def see_state(self, training_step: Step) -> None:
        """Called after each update."""


def run(request: dict, device: str, observer: Observer, *, evaluates: bool = True) -> Step:
    """Go through every phase and tell the observer.

    Args:
        request: A profile's request.
        device: Where the step runs: `meta`, `cpu` or `cuda`.
        observer: Is told when phases begin and end, and what there is to see after them.
        evaluates: Whether an evaluation follows the updates.

    Returns:
        The step, after both updates and the evaluation.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    with other_loops.attention_of(request):
        return _run(request, device, observer, evaluates)


def _run(request: dict, device: str, observer: Observer, evaluates: bool) -> Step:
    with observer.phase("load"):
        model = step.base_model(request, device)
    with observer.phase("prepare"):
        training_step = step.step(request, device, observer.watch, model)
        del model  # an adapted model may not be this one, whose memory must go within the phase
    observer.built(training_step)
    for prefix in ("first_", ""):
        _make_losses(training_step, observer, prefix)
        if training_step.optimizer is None:
            continue  # nothing trains: the step is its forward pass
        with observer.phase(f"{prefix}update"):
            training_step.update()
        observer.see_state(training_step)
    if evaluates:
        with observer.phase("evaluation"):
            training_step.evaluate()
    return training_step


def _make_losses(training_step: Step, observer: Observer, prefix: str) -> None:
    """The forward and backward passes of one step; `prefix` is that of their phases."""
    micro_batches = min(training_step.accumulation_steps, MICRO_BATCHES)
    if training_step.is_forward_only:
        with observer.phase(f"{prefix}forward"):
            training_step.evaluate_losses(micro_batches)
        return
    for _ in range(micro_batches):
        with observer.phase(f"{prefix}forward"):
            loss = training_step.forward()
        if training_step.optimizer is None:
            continue
        with observer.phase(f"{prefix}backward"):
            # A factor of 1 is left out, as in training.
            training_step.backward(loss if micro_batches == 1 else loss / micro_batches)
        del loss  # frees what is left of the graph, as a training loop does
        observer.see_gradients(training_step)
