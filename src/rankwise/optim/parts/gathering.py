"""The step loop of optimizers that sum projections of micro-batches instead of gradients."""

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Stack
from rankwise.optim.parts.processes import average_
from rankwise.optim.parts.release import clip_norm_
from rankwise.optim.parts.released_gradient import ReleasedGradient, is_released
from rankwise.optim.parts.stacked import DescentOptimizer


class GatheringOptimizer(DescentOptimizer):
    """Base of an optimizer that, with release, projects each gradient in backward and frees it.

    `step()` steps from the sums of the projections. Without release it is a `DescentOptimizer`.
    """

    RELEASE = "gathered"
    # Whether the released gradients of this step have been averaged over the processes.
    _averaged = False

    def _finish_released(self) -> None:
        """Take the step, from the projections and gradients that exist."""
        super()._finish_released()
        self._average()
        self._step_all()
        self._forget_gathered()

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:  # ()
        """Scale gradients and gathered projections to a joint norm of at most `max_norm`.

        Call it once, before `step()`. The norm of a projected gradient is that of its projection:
        at most the gradient's for an orthonormal basis, equal to it in mean square for a random
        one.

        Returns:
            The norm before scaling.
        """
        if self.released:
            self._release_what_is_left()
            self._average()
        return clip_norm_(self.gradients(), max_norm)

    def gradients(self) -> list[Tensor]:
        """Return all gathered projections, and all gradients that exist now."""
        projections = []
        for stack in self._stacks.values():
            if any(is_released(param.grad) for param in stack.params):
                self._drop_lost(stack)
                projections.append(stack.gathered)
        return projections + super().gradients()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop gradients and gathered projections."""
        super().zero_grad(set_to_none)
        self._forget_gathered()

    def gradients_bytes(self) -> int:
        """Return the most bytes of gradients alive at once.

        With release these are every projection, every gradient that is not projected, and one full
        gradient that is about to be projected.
        """
        if not self.released:
            return super().gradients_bytes()
        kept, largest = 0, 0
        for group in self.param_groups:
            for param in group["params"]:
                space = getattr(self.descent(group, param), "space", None)
                if space is None:
                    kept += param.numel() * param.element_size()
                else:
                    kept += space.low(param.to("meta")).numel() * param.element_size()
                    largest = max(largest, param.numel() * param.element_size())
        return kept + largest

    def _on_gradient(self, param: Tensor) -> None:
        """Project a gradient, add it to what this step has gathered, and free it.

        A gradient that is not projected stays until the step.
        """
        if not param.numel():
            return
        _, stack, index = self._place(param)
        if not hasattr(stack.descent, "gather"):
            return
        is_first = not is_released(param.grad)
        if is_first:
            self._drop_lost(stack)
            stack.holding.add(index)
        else:
            param.grad = param.grad.added
        batch = self._batch_of_one(stack, index)
        refresh = is_first and self._may_refresh(stack, index, batch.step)
        low = stack.descent.gather(batch, refresh=refresh)
        stack.refreshed[index] = batch.step
        if stack.gathered is None:
            stack.gathered = low.new_zeros(len(stack.params), *low.shape[1:])
        stack.gathered[index] += low[0]
        param.grad = ReleasedGradient(param, self, projection=stack.gathered[index])

    @staticmethod
    def _may_refresh(stack: Stack, index: int, step: int) -> bool:
        """Whether the basis may change in the first micro-batch of a step.

        `zero_grad()` makes the next micro-batch the first one again. Moments were carried over
        already then, and must not be carried over twice, so the basis stays.
        """
        was_refreshed = stack.refreshed.get(index) == step
        return not (was_refreshed and stack.descent.space.transport == "project")

    @staticmethod
    def _drop_lost(stack: Stack) -> None:
        """Zero the projections whose gradient was dropped meanwhile, by the model's `zero_grad`."""
        for index in tuple(stack.holding):
            if not is_released(stack.params[index].grad):
                stack.gathered[index] = 0
                stack.holding.remove(index)

    def _average(self) -> None:
        """Average what was released over the processes, once a step."""
        if not self._averaged:
            for part in self.gradients():
                average_(part)
            self._averaged = True

    def _forget_gathered(self) -> None:
        self._averaged = False
        for stack in self._stacks.values():
            stack.gathered = None
            stack.holding.clear()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._averaged = False
