"""The step loop of optimizers that sum projections of micro-batches instead of gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Stack
from rankwise.optim.parts.processes import average_
from rankwise.optim.parts.release import clip_norm_
from rankwise.optim.parts.stacked import DescentOptimizer, evaluate


class GatheringOptimizer(DescentOptimizer):
    """Base of an optimizer that, with release, projects each gradient in backward and frees it.

    `step()` steps from the sums of the projections. Without release it is a `DescentOptimizer`.
    """

    RELEASE = "gathered"
    # Whether the released gradients of this step have been averaged over the processes.
    _averaged = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step with the gradients and projections that exist.

        Args:
            closure: recomputes the loss, as in torch.

        Returns:
            The closure's loss, or None.
        """
        loss = evaluate(closure)
        self._average()
        self._step_all()
        self._forget_gathered()
        return loss

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:  # ()
        """Scale gradients and gathered projections to a joint norm of at most `max_norm`.

        Call it once, before `step()`. The norm of a projected gradient is that of its projection:
        at most the gradient's for an orthonormal basis, equal to it in mean square for a random
        one.

        Returns:
            The norm before scaling.
        """
        self._average()
        return clip_norm_(self.gradients(), max_norm)

    def gradients(self) -> list[Tensor]:
        """Return all gathered projections, and all gradients that exist now."""
        projections = [stack.gathered for stack in self._stacks.values() if stack.arrived]
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

    @torch.no_grad()
    def _on_gradient(self, param: Tensor) -> None:
        """Project a gradient, add it to what this step has gathered, and free it.

        A gradient that is not projected stays until the step.
        """
        _, stack, index = self._place(param)
        if not hasattr(stack.descent, "gather"):
            return
        batch = self._batch_of_one(stack, index)
        low = stack.descent.gather(batch, refresh=self._may_refresh(stack, index, batch.step))
        stack.refreshed[index] = batch.step
        if stack.gathered is None:
            stack.gathered = low.new_zeros(len(stack.params), *low.shape[1:])
        stack.gathered[index] += low[0]
        stack.arrived |= {index}
        param.grad = None

    @staticmethod
    def _may_refresh(stack: Stack, index: int, step: int) -> bool:
        """Whether the basis may change now: in the first micro-batch of a step.

        `zero_grad()` makes the next micro-batch the first one again. Moments were carried over
        already then, and must not be carried over twice, so the basis stays.
        """
        is_first = index not in stack.arrived
        was_refreshed = stack.refreshed.get(index) == step
        return is_first and not (was_refreshed and stack.descent.space.transport == "project")

    def _average(self) -> None:
        """Average what was released over the processes, once a step."""
        if self.released and not self._averaged:
            for part in self.gradients():
                average_(part)
            self._averaged = True

    def _forget_gathered(self) -> None:
        self._averaged = False
        for stack in self._stacks.values():
            stack.gathered = None
            stack.arrived = frozenset()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._averaged = False
