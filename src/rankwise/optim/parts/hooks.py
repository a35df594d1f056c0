"""Hooks that hand each complete gradient to an optimizer, for as long as the optimizer lives."""

import gc
import weakref
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle


class GradientHooks:
    """The hooks of one optimizer on its parameters.

    Neither the hooks nor this object keep the optimizer alive, and the hooks go when it goes.

    Args:
        optimizer: its `receive(param)` is called inside backward when a gradient is complete.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = weakref.ref(optimizer)
        self._handles: dict[int, RemovableHandle] = {}  # by the parameter's id
        weakref.finalize(optimizer, _remove, self._handles).atexit = False
        _all.add(self)

    def watch(self, params: Iterable[Tensor]) -> None:
        """Put a hook on every parameter that trains and has none."""
        optimizer = self._optimizer

        def on_gradient(param: Tensor) -> None:
            if len(_hooked([param])) > 1:
                gc.collect()  # one of the optimizers may be deleted, and wait for this
            if (alive := optimizer()) is not None:
                alive.receive(param)

        for param in params:
            if param.requires_grad and id(param) not in self._handles:
                self._handles[id(param)] = param.register_post_accumulate_grad_hook(on_gradient)

    def remove(self) -> None:
        """Take all hooks off."""
        _remove(self._handles)


# Of all optimizers that are alive and release gradients.
_all: "weakref.WeakSet[GradientHooks]" = weakref.WeakSet()


def refuse_other_hooks(optimizer: torch.optim.Optimizer, params: list[Tensor]) -> None:
    """Check that no other living optimizer has hooks on the parameters.

    Args:
        optimizer: the one that is about to use the gradients.
        params: its parameters, or some of them.

    Raises:
        RuntimeError: another optimizer has, and therefore uses and frees the gradients.
    """
    if not _others(optimizer, params):
        return
    gc.collect()  # the other one may be deleted, and wait for this
    for other in _others(optimizer, params):
        raise RuntimeError(
            f"released gradient: got a parameter of {other} and {type(optimizer).__name__}, "
            f"allowed: one optimizer, because {other} with release uses and frees the gradient "
            "inside backward; delete it or call its unrelease()"
        )


def _others(optimizer: torch.optim.Optimizer, params: list[Tensor]) -> list[str]:
    """The class names of other optimizers with hooks on the parameters."""
    owners = [hooks._optimizer() for hooks in _hooked(params)]
    return [type(owner).__name__ for owner in owners if owner not in (None, optimizer)]


def _hooked(params: list[Tensor]) -> list[GradientHooks]:
    ids = {id(param) for param in params}
    return [hooks for hooks in _all if not ids.isdisjoint(hooks._handles)]


def _remove(handles: dict[int, RemovableHandle]) -> None:
    for handle in handles.values():
        handle.remove()
    handles.clear()
