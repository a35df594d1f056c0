"""The step loop that our own optimizers share; a descent supplies the mathematics."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.utils._python_dispatch import _disable_current_modes

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.descent import Batch, Descent, LowRank, Stack, State
from rankwise.optim.parts.precision import wide
from rankwise.optim.parts.release import Releasing, clip_norm_

__all__ = ["DescentOptimizer", "settings"]  # what a module of an optimizer imports


class DescentOptimizer(Releasing, torch.optim.Optimizer):
    """Base of a torch optimizer whose parameter groups choose descents.

        W <- (1 - lr * weight_decay) W - lr * d

    d is the direction of the group's descent, and decay is decoupled. With
    `convention="transformers"` W decays after the step instead of before it. Parameters of one
    shape in a group step together: their state is one stacked tensor per key, and `state[param]`
    holds views of it. A group with `"dense": True` is not projected.

    Args:
        params: parameters, or parameter groups.
        defaults: options of every group that does not set its own.
        release: step inside backward and free each gradient.

    Raises:
        ValueError: options that a parameter cannot have.
    """

    TORCH_OPTIONS = False
    HALF = True  # second moments are fp32 whatever the parameter's dtype

    def __init__(self, params: ParamsT, defaults: dict, release: bool = False):
        self.check_options({**defaults, "release": release})
        self._forget_stacks()
        super().__init__(params, {"dense": False, "weight_decay": 0.0, **defaults})
        if release:
            self.release()

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return the descent of one parameter of a group.

        Args:
            group: the parameter group, with every option of the optimizer and `dense`.
            param: a parameter of the group; only its shape matters.

        Raises:
            NotImplementedError: a subclass must define it.
            ValueError: an option is out of range, or two options exclude each other.
        """
        raise NotImplementedError

    def check_param(self, group: dict, param: Tensor) -> None:
        """Raise a ValueError if the group's options do not fit the parameter."""
        super().check_param(group, param)
        if param.numel():
            _template(self.descent(group, param), param)

    def allocate(self) -> None:
        """Allocate the state of every parameter now, rather than at its first step."""
        for group in self.param_groups:
            self._stacks_of(group)

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:  # ()
        """Scale all gradients in place to a joint norm of at most `max_norm`.

        Returns:
            The norm before scaling.

        Raises:
            RuntimeError: with release, which has applied the gradients already.
        """
        if self.released:
            raise RuntimeError(
                "clip_grad_norm_: released gradients were applied in backward and cannot be "
                "clipped; gradient_norm() returns their norm"
            )
        return clip_norm_(self.gradients(), max_norm)

    def _step_all(self) -> None:
        for group in self.param_groups:
            for stack in self._stacks_of(group):
                for params, batch in self._batches(stack):
                    self._advance(group, stack.descent, params, batch)

    def _step_of(self, param: Tensor) -> None:
        if param.numel():
            group, stack, index = self._place(param)
            self._advance(group, stack.descent, [param], self._batch_of_one(stack, index))

    def _advance(self, group: dict, descent: Descent, params: list[Tensor], batch: Batch) -> None:
        """Step the parameters of one batch."""
        for param in params:
            self.state[param]["step"] = batch.step
        decays_late = group.get("convention") == "transformers"
        contains_decay = getattr(descent, "CONTAINS_DECAY", False)  # its directions decay W
        shrink = 1.0 if contains_decay else 1 - group["lr"] * group["weight_decay"]
        for param, direction in zip(params, descent.directions(batch), strict=True):
            _add(param, direction, 1.0 if decays_late else shrink, -group["lr"])
            if decays_late and shrink != 1:
                param.mul_(shrink)

    # Stacks ---------------------------------------------------------------------------------------

    def _forget_stacks(self) -> None:
        # Both are rebuilt from `state` when they are needed.
        self._stacks: dict[tuple, Stack] = {}  # by shape and the ids of the parameters
        self._places: dict[int, tuple[dict, Stack, int]] = {}  # id -> group, stack, index in it

    def _place(self, param: Tensor) -> tuple[dict, Stack, int]:
        """Return the group, the stack, and the index in the stack of a parameter."""
        if id(param) not in self._places:
            self.allocate()
        return self._places[id(param)]

    def _stacks_of(self, group: dict) -> list[Stack]:
        """Return the stacks of a group, one per shape, dtype and device; none of empty tensors."""
        alike: dict[tuple, list[Tensor]] = {}
        for param in (param for param in group["params"] if param.numel()):
            alike.setdefault((param.shape, param.dtype, param.device), []).append(param)
        return [self._stack(group, params) for params in alike.values()]

    def _stack(self, group: dict, params: list[Tensor]) -> Stack:
        """Return the stack of these parameters; build it if it is new or a state was dropped."""
        # The shape is part of the key because a method may shrink a parameter while it trains.
        key = (params[0].shape, *map(id, params))
        if key not in self._stacks or not all(self.state[param] for param in params):
            self._stacks[key] = self._build_stack(group, params)
        return self._stacks[key]

    def _build_stack(self, group: dict, params: list[Tensor]) -> Stack:
        descent = self.descent(group, params[0])
        template = _template(descent, params[0])
        state = {name: self._stack_state(name, like, params) for name, like in template.items()}
        stack = Stack(params, descent, state)
        ids = {id(param) for param in params}
        for old_key in list(self._stacks):
            if not ids.isdisjoint(old_key[1:]):
                del self._stacks[old_key]
        for index, param in enumerate(params):
            views = {name: stacked[index] for name, stacked in state.items()}
            self.state[param] = {"step": self.state[param].get("step", 0), **views}
            self._places[id(param)] = (group, stack, index)
        return stack

    def _stack_state(self, name: str, like: Tensor, params: list[Tensor]) -> Tensor:  # (B, ...)
        """Stack one state tensor of all `params`: copy existing values, zero the rest.

        Values exist if they were loaded, or if the parameters were in an earlier stack.
        """
        shape = (len(params), *like.shape)
        stacked = torch.zeros(shape, dtype=like.dtype, device=params[0].device)
        for index, param in enumerate(params):
            if name in self.state[param]:
                stacked[index] = self.state[param][name]
        return stacked

    def _batches(self, stack: Stack) -> list[tuple[list[Tensor], Batch]]:
        """Return the parameters that have a gradient, with their batches.

        It is one batch if all parameters of the stack step, and at the same step; else each is one.
        """
        ready = [index for index, param in enumerate(stack.params) if param.grad is not None]
        steps = {self.state[stack.params[index]]["step"] + 1 for index in ready}
        if len(ready) == len(stack.params) and len(steps) == 1:
            return [(stack.params, stack.batch(slice(None), steps.pop()))]
        return [([stack.params[index]], self._batch_of_one(stack, index)) for index in ready]

    def _batch_of_one(self, stack: Stack, index: int) -> Batch:
        step = self.state[stack.params[index]]["step"] + 1
        return stack.batch(slice(index, index + 1), step)

    # Saving ---------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state dict, as in torch, except that every tensor keeps its own dtype.

        Torch casts state tensors to the parameter's dtype, which would round indices of a dct
        basis.
        """
        super().load_state_dict(state_dict)
        params = [param for group in self.param_groups for param in group["params"]]
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        for param, index in zip(params, saved, strict=True):
            for key, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][key] = value.to(param.device)
        self._forget_stacks()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._forget_stacks()


def _template(descent: Descent, param: Tensor) -> State:
    """Return meta tensors of the shapes and dtypes of a parameter's state; nothing is allocated."""
    # The modes count allocations and FLOPs; these tensors are part of neither.
    with _disable_current_modes():
        return descent.init_state(torch.empty(param.shape, dtype=param.dtype, device="meta"))


def _add(param: Tensor, direction: Tensor | LowRank, shrink: float, rate: float) -> None:
    """Set `param` to shrink * param + rate * direction."""
    if isinstance(direction, LowRank) and param.is_contiguous():
        weight = direction.view(param)
        weight.addmm_(direction.left, direction.right, beta=shrink, alpha=rate)
    elif isinstance(direction, LowRank):
        whole = torch.empty(param.shape, dtype=param.dtype, device=param.device)
        torch.mm(direction.left, direction.right, out=direction.view(whole))
        param.mul_(shrink).add_(whole, alpha=rate)
    elif direction.dtype != param.dtype:
        # A direction in fp32 for a weight in bf16 or fp16: the weight is rounded once.
        param.copy_(wide(param).mul_(shrink).add_(direction, alpha=rate))
    elif shrink == 1:
        param.add_(direction, alpha=rate)
    else:
        param.mul_(shrink).add_(direction, alpha=rate)
