"""Parameters that train, but not now: an optimizer of blocks switches their gradients off and on.

`requires_grad` alone says which parameters get a gradient at this step. `trains` says which
parameters a run trains, saves and restores.
"""

from torch import Tensor

_MARK = "_waits_for_its_turn"


def trains(param: Tensor) -> bool:
    """Whether a parameter trains in this run, now or in its turn."""
    return param.requires_grad or getattr(param, _MARK, False)


def set_waiting(param: Tensor, waits: bool) -> None:
    """Switch a parameter's gradient off until its turn, or on.

    Args:
        param: a parameter that trains.
        waits: whether it is not its turn.
    """
    param.requires_grad_(not waits)
    setattr(param, _MARK, waits)
