"""LOMO: SGD fused into backward, without any state and with one gradient at a time.

Source: Lv et al. 2023, arXiv 2306.09782, Algorithm 1.
Where we differ: the authors clip by the global norm, after a first backward that only gathers
norms, at twice the cost. That is not offered.
"""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Descent
from rankwise.optim.parts.rules import SgdRule, WholeGradient
from rankwise.optim.parts.stacked import DescentOptimizer, settings


class Lomo(DescentOptimizer):
    """SGD that steps inside backward; `step()` only marks the end of a step.

        W <- (1 - lr * weight_decay) W - lr * G

    Gradients can be neither accumulated nor clipped, unless `release=False`.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.

    References:
        Lv et al. 2023, LOMO, arXiv 2306.09782, Algorithm 1.

    Example:
        >>> optimizer = Lomo(model.parameters(), lr=1e-3)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    HALF = True
    STATE = "0"
    VECTOR = "0"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.0,
        release: bool = True,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return SGD without momentum."""
        return WholeGradient(SgdRule())
