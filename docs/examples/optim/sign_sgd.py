"""signSGD with momentum: m <- mu m + (1 - mu) g, W <- W - lr sign(m).

Source: Bernstein et al. 2018, arXiv 1802.04434 (there called Signum). Put this file into the folder
`optim` of your own project, beside the studies.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class SignSgd(torch.optim.Optimizer):
    """The arguments after `lr` are the options that an entry of config/methods.yaml may set.

    `STATE`, `VECTOR` and `DENSE` say how many numbers the optimizer keeps for a matrix (m, n), a
    vector of k numbers, and a matrix of k numbers that an entry exempts from projection. `rankwise
    methods` prints them.
    """

    STATE = "m * n"
    VECTOR = "k"
    DENSE = "k"

    def __init__(self, params, lr: float = 1e-4, *, momentum: float = 0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @classmethod
    def formula(cls, **options: object) -> str:
        """`STATE` for these options."""
        return cls.STATE

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step with the gradients of the parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, group["lr"], group["momentum"])
        return loss

    def _update(self, param: Tensor, lr: float, momentum: float) -> None:
        state = self.state[param]
        if not state:
            state["average"] = torch.zeros_like(param)
        average = state["average"].lerp_(param.grad, 1 - momentum)
        param.add_(average.sign(), alpha=-lr)
