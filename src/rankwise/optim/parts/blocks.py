"""The step loop of optimizers that train some blocks of a model at a time, by turns.

A parameter group's key "block" names its block. In a turn of `interval_steps` steps only the active
blocks require gradients and have state. The state of a block that stops being active is dropped; a
block that becomes active starts with fresh state. Which blocks are active follows from the number
of steps taken and the seed, so a resumed run goes on as the uninterrupted one.
"""

from collections.abc import Hashable

from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Descent
from rankwise.optim.parts.rules import AdamRule, WholeGradient
from rankwise.optim.parts.stacked import DescentOptimizer
from rankwise.optim.parts.waiting import set_waiting

# Options of the whole optimizer, which groups carry for a saved state.
_SHARED = ("interval_steps", "order", "active_layers", "seed")


class BlockOptimizer(DescentOptimizer):
    """Base of an optimizer that steps active blocks by AdamW; a subclass says which are active.

    It sets `requires_grad` of all its parameters, from its construction on; `activate_all` switches
    every gradient on again. It does not release gradients inside backward.

    Args:
        params: parameter groups with "block", or parameters, which are then one block (None).
        defaults: options of every group that does not set its own, `interval_steps` among them.

    Raises:
        ValueError: an option is not allowed, or differs between groups that must share it.
    """

    BY_BLOCK = True  # build_optimizer makes a parameter group of each block
    GROUP_KEYS = frozenset({"block", "taken"})
    # Blocks that are active whatever the step is, for a profile; None while turns are taken.
    _assumed: frozenset | None = None

    def __init__(self, params: ParamsT, defaults: dict):
        super().__init__(params, {**defaults, "block": None, "taken": 0})
        self._take_turn()

    def active_in(self, turn: int) -> set[Hashable]:
        """Return the blocks that are active in a turn.

        Args:
            turn: number of the turn, from 0.

        Raises:
            NotImplementedError: a subclass must define it.
        """
        raise NotImplementedError

    def largest(self) -> set[Hashable]:
        """Return the active blocks of the turn with most numbers; of equal ones the first.

        Raises:
            NotImplementedError: a subclass must define it.
        """
        raise NotImplementedError

    def blocks(self) -> dict[Hashable, int]:
        """Return how many numbers each block has, in the order of the parameter groups."""
        sizes: dict[Hashable, int] = {}
        for group in self.param_groups:
            numbers = sum(param.numel() for param in group["params"])
            sizes[group["block"]] = sizes.get(group["block"], 0) + numbers
        return sizes

    def active(self) -> set[Hashable]:
        """Return the blocks that have gradients now."""
        if self._assumed is not None:
            return set(self._assumed)
        first = self.param_groups[0]
        return self.active_in(first["taken"] // first["interval_steps"])

    def assume_largest(self) -> None:
        """From now on keep the largest blocks active, for a profile."""
        self._assumed = frozenset(self.largest())
        self._take_turn()

    def activate_all(self) -> None:
        """Let every parameter require gradients again; call it when this optimizer is done."""
        for param in self._params():
            set_waiting(param, waits=False)

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return Adam, for every parameter."""
        return WholeGradient(AdamRule(group["betas"], group["eps"]))

    def add_param_group(self, param_group: dict) -> None:
        """Add a parameter group, as in torch.

        Raises:
            ValueError: an option that all groups share differs from the first group's.
        """
        super().add_param_group(param_group)
        first, group = self.param_groups[0], self.param_groups[-1]
        for name in _SHARED:
            if group.get(name) != first.get(name):
                self.param_groups.pop()
                raise ValueError(
                    f"{type(self).__name__}: param_groups[{len(self.param_groups)}].{name}: got "
                    f"{group[name]!r}, allowed: {first[name]!r}, as in param_groups[0], because "
                    "turns are the whole optimizer's"
                )
        group["taken"] = first["taken"]
        self._take_turn()

    def allocate(self) -> None:
        """Allocate the state of the active blocks now, rather than at their first step."""
        for group in self._active_groups():
            self._stacks_of(group)

    def gradients_bytes(self) -> int:
        """Return the bytes of the active blocks' gradients."""
        params = [param for group in self._active_groups() for param in group["params"]]
        return sum(param.numel() * param.element_size() for param in params)

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state, as in torch, and activate the blocks whose turn it is."""
        super().load_state_dict(state_dict)
        self._take_turn()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._take_turn()

    def _active_groups(self) -> list[dict]:
        active = self.active()
        return [group for group in self.param_groups if group["block"] in active]

    def _step_all(self) -> None:
        for group in self._active_groups():
            for stack in self._stacks_of(group):
                for params, batch in self._batches(stack):
                    self._advance(group, stack.descent, params, batch)
        for group in self.param_groups:
            group["taken"] += 1
        if self.param_groups[0]["taken"] % self.param_groups[0]["interval_steps"] == 0:
            self._take_turn()

    def _take_turn(self) -> None:
        """Switch gradients on in the active blocks, and off in the others, whose state is dropped.

        The state of a block that stays active stays.
        """
        active = self.active()
        for group in self.param_groups:
            waits = group["block"] not in active
            for param in group["params"]:
                set_waiting(param, waits)
                if waits:
                    self._drop_state(param)

    def _drop_state(self, param: Tensor) -> None:
        """Free a parameter's state: its own views, and the stack behind them."""
        self.state.pop(param, None)
        self._places.pop(id(param), None)
        for key in [key for key in self._stacks if id(param) in key[1:]]:
            del self._stacks[key]
