"""The life of a training process in phases, which observers of memory watch: load, prepare, two steps, an evaluation.

The first step makes the optimizer's state and computes its first bases; the second is like those between refreshes.
"""

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import nn

from rankwise.measure import step
from rankwise.measure.step import Step

STEPS = ("first_forward", "first_backward", "first_update", "forward", "backward", "update")
BUILDING = ("load", "prepare")


class Observer(Protocol):
    """What looks on."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Everything within belongs to the phase."""

    def watch(self, model: nn.Module) -> None:
        """Called with the adapted model, before there is an optimizer."""

    def built(self, one: Step) -> None:
        """Called between prepare and the first step."""

    def see_gradients(self, one: Step) -> None:
        """Called after each backward."""

    def see_state(self, one: Step) -> None:
        """Called after each update."""


def run(request: dict, device: str, observer: Observer) -> Step:
    """Go through every phase under the observer's eyes.

    Raises:
        Unsupported: the method cannot do this model, with the reason.
    """
    with observer.phase("load"):
        model = step.base(request, device)
    with observer.phase("prepare"):
        one = step.step(request, device, observer.watch, model)
        del model
    observer.built(one)
    for first in ("first_", ""):
        with observer.phase(f"{first}forward"):
            loss = one.forward()
        if one.optimizer is None:
            continue
        with observer.phase(f"{first}backward"):
            loss.backward()
        del loss
        observer.see_gradients(one)
        with observer.phase(f"{first}update"):
            one.update()
        observer.see_state(one)
    with observer.phase("evaluation"), torch.no_grad():
        one.model.eval()
        one.forward()
    return one
