"""AdaLomo: Adafactor's second moment and clipped updates, fused into backward.

Source: Lv et al. 2023, arXiv 2310.10195, Algorithm 1. A vector keeps its whole second moment.
Where we differ from the authors' release:

- Gradients are used in hooks after accumulation, not in a loop over tensors; no device is fixed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.relative import clip_rms_, init_squares, normalised, relative_
from rankwise.optim.parts.stacked import DescentOptimizer, settings


class AdaLomo(DescentOptimizer):
    """Adafactor that steps inside backward; `step()` only marks the end of a step.

        v_r, v_c <- sums of G^2 over rows and columns, with decay 1 - t^-0.8
        U = G / sqrt(v_r v_c^T / sum(v_r))
        U <- U / max(1, RMS(U) / clip)
        W <- (1 - rate * weight_decay) W - rate * U,  rate = lr * max(smallest, RMS(W))

    RMS is the root mean square of a tensor's entries. Gradients can be neither accumulated nor
    clipped by their global norm, unless `release=False`.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate, relative to the weight's root mean square.
        clip: largest root mean square of an update before it is scaled.
        smallest: least root mean square that a weight counts with, so that zero weights can move.
        weight_decay: decoupled, per unit of the relative learning rate.
        release: step inside backward and free each gradient.

    References:
        Lv et al. 2023, AdaLomo, arXiv 2310.10195, Algorithm 1.

    Example:
        >>> optimizer = AdaLomo(model.parameters(), lr=1e-3)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "m + n"
    VECTOR = "k"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        clip: float = 1.0,
        smallest: float = 1e-3,
        weight_decay: float = 0.0,
        release: bool = True,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return AdaLomo's descent, for matrices and vectors alike."""
        return AdaLomoDescent(group["clip"], group["smallest"], group["weight_decay"])


@dataclass(frozen=True)
class AdaLomoDescent:
    """AdaLomo's mathematics; state: v_r (m) and v_c (n), or v (k) for a vector."""

    CONTAINS_DECAY: ClassVar[bool] = True

    clip: float
    smallest: float
    weight_decay: float

    def init_state(self, param: Tensor) -> State:
        return init_squares(param)

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Divide by the second moment's root, clip, and scale by the weight's root mean square."""
        for index, (param, grad) in enumerate(zip(batch.params, batch.grads, strict=True)):
            update = normalised(grad, batch.state_of(index), batch.step)
            clip_rms_(update, self.clip)
            yield relative_(update, param, self.smallest, self.weight_decay)
