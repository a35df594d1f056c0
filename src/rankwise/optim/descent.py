"""The one optimizer loop; a descent supplies the mathematics of one parameter's update."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

State = dict[str, Tensor]


class Descent(Protocol):
    """How one parameter's gradient becomes a direction. Holds settings only; all memory is in the state."""

    def init_state(self, param: Tensor) -> State:
        """Allocate everything ever kept for `param`; on the meta device this is the prediction of its memory."""

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        """Return d, shaped like `grad`, for `param -= lr * d`. Updates `state`, never writes `grad`. `step` counts from 1."""


class DescentOptimizer(torch.optim.Optimizer):
    """Applies one descent per parameter group, with decoupled weight decay (W <- (1 - lr * decay) W, before the step).

    The descents stay out of `param_groups`, so that `state_dict()` holds tensors and numbers only and loads under
    torch's `weights_only`.

    Args:
        groups: `{"params": [...], "descent": Descent}` each.
        lr: learning rate.
        weight_decay: decoupled decay, per unit of learning rate.
    """

    def __init__(self, groups: Iterable[dict], lr: float, weight_decay: float = 0.0):
        groups = list(groups)
        self.descents: list[Descent] = [group["descent"] for group in groups]
        plain = [{key: value for key, value in group.items() if key != "descent"} for group in groups]
        super().__init__(plain, {"lr": lr, "weight_decay": weight_decay})

    def allocate(self) -> None:
        """Allocate the state of every parameter now, rather than at its first step."""
        for descent, group in zip(self.descents, self.param_groups, strict=True):
            for param in group["params"]:
                self._state_of(param, descent)

    def _state_of(self, param: Tensor, descent: Descent) -> State:
        state = self.state[param]
        if not state:
            state.update(step=0, **descent.init_state(param))
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step with the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for descent, group in zip(self.descents, self.param_groups, strict=True):
            for param in (p for p in group["params"] if p.grad is not None):
                state = self._state_of(param, descent)
                state["step"] += 1
                direction = descent.direction(param.grad, state, state["step"])
                param.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
        return loss

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's, but every state tensor keeps its own dtype (torch casts it to the parameter's)."""
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        for param, index in zip(params, saved, strict=True):
            for key, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][key] = value.to(param.device, copy=True)
