"""AdaLomo: Adafactor's second moment and grouped updates, fused into backward (Lv et al. 2023, 2310.10195, Algorithm 1).

v_r, v_c <- means of G^2 by rows and columns with decay 1 - t^-0.8, U = G / sqrt(v), U <- U / max(1, RMS(U) / clip),
W <- W - lr max(eps2, RMS(W)) U, in the hook of each parameter. A vector keeps its whole second moment.
Where we differ from the authors' release: hooks after accumulation instead of a loop over tensors, and no fixed device.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.rules import factored_root
from rankwise.optim.parts.stacked import DescentOptimizer, settings


class AdaLomo(DescentOptimizer):
    """Adafactor inside backward; `optimizer.step()` only closes the step."""

    STATE = "m + n"
    VECTOR = "k"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        clip: float = 1.0,
        smallest: float = 1e-3,
        weight_decay: float = 0.0,
        release: bool = True,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        return Grouped(group["clip"], group["smallest"])


@dataclass(frozen=True)
class Grouped:
    """AdaLomo's mathematics; state: v_r (m) and v_c (n), or v (k) for a vector."""

    clip: float
    smallest: float

    def init_state(self, param: Tensor) -> State:
        if param.ndim < 2:
            return {"squares": param.new_zeros(param.shape)}
        rows, columns = param.flatten(1).shape
        return {"row_sums": param.new_zeros(rows), "column_sums": param.new_zeros(columns)}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        decay = 1 - batch.step**-0.8
        for index, (param, grad) in enumerate(zip(batch.params, batch.grads, strict=True)):
            state = {key: value[index] for key, value in batch.state.items()}
            update = grad / self._root(grad.square() + 1e-30, state, decay)
            update.div_((update.square().mean().sqrt() / self.clip).clamp(min=1))
            yield update.mul_(param.square().mean().sqrt().clamp(min=self.smallest))

    @staticmethod
    def _root(square: Tensor, state: State, decay: float) -> Tensor:
        if "squares" in state:
            return state["squares"].lerp_(square, 1 - decay).sqrt()
        return factored_root(
            square.flatten(1), state["row_sums"], state["column_sums"], decay
        ).view_as(square)
