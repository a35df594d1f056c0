"""The data structures between an optimizer and its mathematics.

Descent: the mathematics of one method. It turns gradients into directions and holds settings only.
Batch: what a descent works on, namely parameters of one shape with their gradients and state.
Stack: all parameters of one shape in a parameter group, with one tensor per state key.

Letters used throughout this package: a gradient G is (m, n). Seen from the side that is projected
it is (s, L); P (s, r) is the basis of the subspace, and R = P^T G (r, L) the projected gradient. B
counts the parameters of a batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from rankwise.optim.parts.released_gradient import is_released

State = dict[str, Tensor]


class LowRank(NamedTuple):
    """A direction kept as two factors: `view(direction) = left @ right`.

    The optimizer adds the product to the weight directly, so the (m, n) direction is never formed.
    """

    left: Tensor  # (s, r)
    right: Tensor  # (r, L)
    view: Callable[[Tensor], Tensor]  # (m, n) -> (s, L), sharing memory


@dataclass
class Batch:
    """B parameters of one shape at one step.

    Attributes:
        params: the B parameters, to read; a copy where a parameter is not contiguous.
        grads: their gradients, in the same order; `None` where a projection was gathered instead.
        state: every state tensor of the parameters, stacked to (B, ...). Descents update it in
            place.
        step: number of this step, from 1.
        gathered: (B, r, L) projections summed during backward, or None. They then replace `grads`.
    """

    params: list[Tensor]
    grads: list[Tensor]
    state: State
    step: int
    gathered: Tensor | None = None

    def state_of(self, index: int) -> State:
        """Return the state of one parameter, as views of the stacked tensors."""
        return {name: stacked[index] for name, stacked in self.state.items()}


class Descent(Protocol):
    """How gradients become directions. Holds settings only; all memory is in the state."""

    def init_state(self, param: Tensor) -> State:
        """Return the state of `param` before its first step, all zero.

        The optimizer calls this with a tensor on the meta device, to predict the state's size.

        Args:
            param: the parameter; only its shape, dtype and device matter.

        Returns:
            Tensors of one parameter by name; the optimizer stacks them to (B, ...).
        """

    def directions(self, batch: Batch) -> Iterator[Tensor | LowRank]:
        """Yield one direction d per parameter, for `param -= lr * d`.

        Updates `batch.state` in place and never writes to `batch.grads`. The optimizer applies each
        direction before it asks for the next one.

        Args:
            batch: parameters of one shape, their gradients and state.

        Yields:
            In the order of `batch.params`, a tensor of the parameter's shape or its two factors.
        """


class GatheringDescent(Descent, Protocol):
    """A descent that uses a gradient only through its projection, which is linear in the gradient.

    Projections of micro-batches can therefore be summed in place of the gradients.
    """

    def gather(self, batch: Batch, *, refresh: bool) -> Tensor:
        """Project the gradients to (B, r, L), after a refresh if one is due and allowed.

        Updates the bases, and what depends on them, in `batch.state`.

        Args:
            batch: parameters of one shape, with their gradients.
            refresh: whether the basis may change now. It may not once this step has used it.

        Returns:
            The projections (B, r, L); (B, r, r) if both sides are projected.
        """


@dataclass
class Stack:
    """All parameters of one shape in a parameter group, and their state in one tensor per key.

    Attributes:
        params: the parameters; index i of every state tensor belongs to `params[i]`.
        descent: the mathematics that they share.
        state: state tensors (B, ...).
        gathered: (B, r, L) projections summed since the last step, or None.
        holding: indices of the parameters that have a projection in `gathered`.
        refreshed: by index, the step for which a basis was last refreshed during backward.
    """

    params: list[Tensor]
    descent: Descent
    state: State
    gathered: Tensor | None = None
    holding: set[int] = field(default_factory=set)
    refreshed: dict[int, int] = field(default_factory=dict)

    def batch(self, chosen: slice, step: int) -> Batch:
        """Return the chosen parameters as one batch, whose state tensors are views of the stack's.

        Args:
            chosen: indices of the parameters.
            step: number of the step that is taken, from 1.
        """
        # Views of a matrix from both sides need contiguous memory, which channels_last lacks.
        params = [param.contiguous() for param in self.params[chosen]]
        grads = [_readable(param.grad) for param in self.params[chosen]]
        state = {name: stacked[chosen] for name, stacked in self.state.items()}
        gathered = None if self.gathered is None else self.gathered[chosen]
        return Batch(params, grads, state, step, gathered)


def _readable(grad: Tensor | None) -> Tensor | None:
    """Return the gradient, contiguous; None if its projection was gathered instead."""
    return None if grad is None or is_released(grad) else grad.contiguous()
