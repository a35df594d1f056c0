"""The one optimizer loop; a descent supplies the mathematics of a batch of same-shaped parameters."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from rankwise.optim.parts.descent import Batch, Descent, LowRank, Stack, State
from rankwise.optim.parts.release import Releasing, average_


def settings(arguments: dict) -> dict:
    """The options among the `locals()` of an optimizer's `__init__`: its parameter groups' defaults."""
    return {
        key: value
        for key, value in arguments.items()
        if key not in ("self", "params", "release", "__class__")
    }


class DescentOptimizer(Releasing, torch.optim.Optimizer):
    """A torch optimizer whose parameter groups choose descents; decay is decoupled, W <- (1 - lr * decay) W - lr d.

    Parameters of one shape step together: their state is one tensor, and `state[param]` holds views of it. A group with
    `"dense": True` steps by the inner rule on the whole gradient. `state_dict()` holds tensors and numbers only.
    """

    def __init__(self, params, defaults: dict, release: bool = False):
        self._stacks: dict[tuple, Stack] = {}
        self._places: dict[int, tuple[dict, Stack, int]] = {}
        self._averaged = (
            False  # whether this step's released gradients are averaged over the processes
        )
        super().__init__(params, {"dense": False, "weight_decay": 0.0, **defaults})
        if release:
            self.release()

    def descent(self, group: dict, param: Tensor) -> Descent:
        """The descent of one parameter of a group."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict) -> None:
        """As torch's; options that a parameter cannot have are refused here, with a ValueError."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for param in group["params"]:
            _template(self.descent(group, param), param)

    def allocate(self) -> None:
        """Allocate the state of every parameter now, rather than at its first step."""
        for group in self.param_groups:
            self._stacked(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step with the gradients that are there."""
        if self.released and self.RELEASE == "fused":
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._average()
        for group in self.param_groups:
            for stack in self._stacked(group):
                for batch in self._batches(stack):
                    self._advance(group, stack.descent, batch)
        self._forget()
        return loss

    def _advance(self, group: dict, descent: Descent, batch: Batch) -> None:
        for param in batch.params:
            self.state[param]["step"] = batch.step
        late = group.get("convention") == "transformers"  # decays after the step
        shrink = 1 - group["lr"] * group["weight_decay"]
        for param, direction in zip(batch.params, descent.directions(batch), strict=True):
            _add(param, direction, 1.0 if late else shrink, -group["lr"])
            if late and shrink != 1:
                param.mul_(shrink)

    # Stacks -----------------------------------------------------------------------------------------------------------

    def _stacked(self, group: dict) -> list[Stack]:
        alike: dict[tuple, list[Tensor]] = {}
        for param in group["params"]:
            alike.setdefault((param.shape, param.dtype, param.device), []).append(param)
        return [self._stack(group, params) for params in alike.values()]

    def _stack(self, group: dict, params: list[Tensor]) -> Stack:
        key = (params[0].shape, *map(id, params))
        if key not in self._stacks or not all(self.state[param] for param in params):
            descent = self.descent(group, params[0])
            template = _template(descent, params[0])
            state = {name: self._gather(name, like, params) for name, like in template.items()}
            stale = {
                id(param) for param in params
            }  # of stacks that they were in when they had another shape
            self._stacks = {
                known: stack for known, stack in self._stacks.items() if stale.isdisjoint(known[1:])
            }
            self._stacks[key] = stack = Stack(params, descent, state)
            for index, param in enumerate(params):
                views = {name: value[index] for name, value in state.items()}
                self.state[param] = {"step": self.state[param].get("step", 0), **views}
                self._places[id(param)] = (group, stack, index)
        return self._stacks[key]

    def _gather(self, name: str, like: Tensor, params: list[Tensor]) -> Tensor:
        """One state tensor of all `params`: zero, or what is there already (loaded, or of a stack that has changed)."""
        stacked = torch.zeros((len(params), *like.shape), dtype=like.dtype, device=params[0].device)
        for index, param in enumerate(params):
            if name in self.state[param]:
                stacked[index] = self.state[param][name]
        return stacked

    def _batches(self, stack: Stack) -> list[Batch]:
        """All parameters at once where all have a gradient and the same step, else one by one."""
        ready = [i for i, p in enumerate(stack.params) if p.grad is not None or i in stack.arrived]
        steps = {self.state[stack.params[i]]["step"] + 1 for i in ready}
        if len(ready) == len(stack.params) and len(steps) == 1:
            return [stack.batch(slice(None), steps.pop())]
        return [
            stack.batch(slice(i, i + 1), self.state[stack.params[i]]["step"] + 1) for i in ready
        ]

    # Release ----------------------------------------------------------------------------------------------------------

    def _on_gradient(self, param: Tensor) -> None:
        if self.RELEASE == "fused":
            super()._on_gradient(param)
        else:
            self._keep(*self._place(param)[1:])

    def _step_of(self, param: Tensor) -> None:
        group, stack, index = self._place(param)
        self._advance(
            group,
            stack.descent,
            stack.batch(slice(index, index + 1), self.state[param]["step"] + 1),
        )

    def _place(self, param: Tensor) -> tuple[dict, Stack, int]:
        if id(param) not in self._places:
            self.allocate()
        return self._places[id(param)]

    @torch.no_grad()
    def _keep(self, stack: Stack, index: int) -> None:
        """Project one gradient, add it to what this step has gathered, and free it; one that is not projected stays."""
        if not hasattr(stack.descent, "gather"):
            return
        param, first = stack.params[index], index not in stack.arrived
        batch = stack.batch(slice(index, index + 1), self.state[param]["step"] + 1)
        again = (
            stack.refreshed.get(index) == batch.step
        )  # zero_grad has dropped gradients; moments are carried over once
        low = stack.descent.gather(
            batch, first=first and not (again and stack.descent.space.transport == "project")
        )
        stack.refreshed[index] = batch.step
        if stack.gathered is None:
            stack.gathered = low.new_zeros(len(stack.params), *low.shape[1:])
        stack.gathered[index] += low[0]
        stack.arrived |= {index}
        param.grad = None

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale gradients and gathered projections to a joint norm of at most `max_norm`; returns the norm before.

        Call it once, before `step()`. The norm of a projected gradient is that of its projection: at most the gradient's
        for an orthonormal basis, equal to it in the mean of squares for a random one.
        """
        if self.released and self.RELEASE == "fused":
            raise RuntimeError(
                "clip_grad_norm_: released gradients have been applied already; gradient_norm() tells their norm"
            )
        self._average()
        parts = self.gradients()
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(part) for part in parts])
        )
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        for part in parts:
            part.mul_(scale)
        return norm

    def gradients_bytes(self) -> int:
        """As Releasing's; gathering keeps every projection, every gradient that is not projected, and one that will be."""
        if self.RELEASE == "fused" or not self.released:
            return super().gradients_bytes()
        kept, whole = 0, [0]
        for group in self.param_groups:
            for param in group["params"]:
                descent, size = self.descent(group, param), param.numel() * param.element_size()
                space = getattr(descent, "space", None)
                kept += (
                    space.low(param.to("meta")).numel() * param.element_size() if space else size
                )
                whole.append(size if space else 0)
        return kept + max(whole)

    def _average(self) -> None:
        """Average released gradients over the processes, once a step: what is exchanged is as small as what is kept."""
        if self.released and not self._averaged:
            for part in self.gradients():
                average_(part)
            self._averaged = True

    def gradients(self) -> list[Tensor]:
        """Every gathered projection, and every gradient that is still there."""
        return [
            stack.gathered for stack in self._stacks.values() if stack.arrived
        ] + super().gradients()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop gradients and gathered projections."""
        super().zero_grad(set_to_none)
        self._forget()

    def _forget(self) -> None:
        self._averaged = False
        for stack in self._stacks.values():
            stack.gathered, stack.arrived = None, frozenset()

    # Saving -----------------------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's, but every state tensor keeps its own dtype (torch casts it to the parameter's)."""
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        for param, index in zip(params, saved, strict=True):
            for key, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][key] = value.to(param.device)
        self._stacks.clear()
        self._places.clear()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._stacks, self._places, self._averaged = {}, {}, False


def _template(descent: Descent, param: Tensor) -> State:
    """The shapes and dtypes of a parameter's state; nothing is allocated, so nobody who counts allocations sees it."""
    with _disable_current_modes():
        return descent.init_state(torch.empty_like(param, device="meta"))


def _add(param: Tensor, direction: Tensor | LowRank, shrink: float, rate: float) -> None:
    """Param <- shrink * param + rate * direction."""
    if isinstance(direction, LowRank):
        direction.view(param).addmm_(direction.left, direction.right, beta=shrink, alpha=rate)
    elif shrink == 1:
        param.add_(direction, alpha=rate)
    else:
        param.mul_(shrink).add_(direction, alpha=rate)
