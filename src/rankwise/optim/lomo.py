"""LOMO: SGD fused into backward, no state and one gradient at a time (Lv et al. 2023, 2306.09782, Algorithm 1).

W <- (1 - lr decay) W - lr G, in the hook of each parameter. Gradients can be neither accumulated nor clipped by their global
norm (the authors' way to clip is a first backward pass that only gathers norms, at twice the cost; not offered).
"""

from torch import Tensor

from rankwise.optim.parts.descent import Descent
from rankwise.optim.parts.rules import Elementwise, Sgd
from rankwise.optim.parts.stacked import DescentOptimizer, settings


class Lomo(DescentOptimizer):
    """SGD inside backward; `optimizer.step()` only closes the step."""

    STATE = "0"
    VECTOR = "0"

    def __init__(
        self, params, lr: float = 1e-3, *, weight_decay: float = 0.0, release: bool = True
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        return Elementwise(Sgd())
