"""What an optimizer here is made of: a descent is the mathematics, a batch what it works on, a stack what is kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

State = dict[str, Tensor]


class LowRank(NamedTuple):
    """A direction left as its factors: `view(direction) = left @ right`, added to the weight without being formed."""

    left: Tensor  # (s, k)
    right: Tensor  # (k, L)
    view: Callable[[Tensor], Tensor]  # the weight as (s, L), sharing its memory


@dataclass
class Batch:
    """B parameters of one shape at one step."""

    params: list[Tensor]
    grads: list[Tensor]
    state: State  # every tensor (B, ...)
    step: int  # counts from 1
    gathered: Tensor | None = (
        None  # (B, r, L): gradients projected as they appeared, in place of `grads`
    )


class Descent(Protocol):
    """How gradients become directions. Holds settings only; all memory is in the state."""

    def init_state(self, param: Tensor) -> State:
        """What is kept for `param`, all zero; on the meta device this is the prediction of its memory."""

    def directions(self, batch: Batch) -> Iterator[Tensor | LowRank]:
        """One d a parameter, for `param -= lr * d`. Updates `batch.state`, never writes `batch.grads`."""


class Gathering(Descent, Protocol):
    """A descent that is linear in the gradient up to a small projection, so that projections can be summed instead."""

    def gather(self, batch: Batch, *, first: bool) -> Tensor:
        """Project gradients to (B, r, L); on the `first` of a step refresh the subspace if that is due."""


@dataclass
class Stack:
    """Same-shaped parameters of a group, and their state in one tensor a key."""

    params: list[Tensor]
    descent: Descent
    state: State
    gathered: Tensor | None = None
    arrived: frozenset[int] = frozenset()
    refreshed: dict[int, int] = field(
        default_factory=dict
    )  # the step for which a gathering parameter last saw to its basis

    def batch(self, chosen: slice, step: int) -> Batch:
        """The parameters of a slice as one batch."""
        state = {key: value[chosen] for key, value in self.state.items()}
        params = self.params[chosen]
        gathered = None if self.gathered is None else self.gathered[chosen]
        return Batch(params, [p.grad for p in params], state, step, gathered)
