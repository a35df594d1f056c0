"""AdaLomo: Adafactor's second moment and clipped updates, fused into backward.

Source: Lv et al. 2023, arXiv 2310.10195, Algorithm 1. A vector keeps its whole second moment.
Where we differ from the authors' release:

- Gradients are used in hooks after accumulation, not in a loop over tensors; no device is fixed.
- The weight shrinks by lr * weight_decay. Theirs shrinks by lr * RMS(W) * weight_decay, because
  they decay by the relative learning rate.
- Sums have the weight's dtype; theirs are fp32. In bf16 a sum near its limit no longer decays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.rules import factored_root
from rankwise.optim.parts.stacked import DescentOptimizer, settings


class AdaLomo(DescentOptimizer):
    """Adafactor that steps inside backward; `step()` only marks the end of a step.

        v_r, v_c <- sums of G^2 over rows and columns, with decay 1 - t^-0.8
        U = G / sqrt(v_r v_c^T / sum(v_r))
        U <- U / max(1, RMS(U) / clip)
        W <- (1 - lr * weight_decay) W - lr * max(smallest, RMS(W)) * U

    RMS is the root mean square of a tensor's entries. Gradients can be neither accumulated nor
    clipped by their global norm, unless `release=False`.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate, relative to the weight's root mean square.
        clip: largest root mean square of an update before it is scaled.
        smallest: least root mean square that a weight counts with, so that zero weights can move.
        weight_decay: decoupled, per unit of learning rate.
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
        return AdaLomoDescent(group["clip"], group["smallest"])


@dataclass(frozen=True)
class AdaLomoDescent:
    """AdaLomo's mathematics; state: v_r (m) and v_c (n), or v (k) for a vector."""

    clip: float
    smallest: float

    def init_state(self, param: Tensor) -> State:
        if param.ndim < 2:
            return {"squares": param.new_zeros(param.shape)}
        rows, columns = param.flatten(1).shape
        return {"row_sums": param.new_zeros(rows), "column_sums": param.new_zeros(columns)}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Divide by the second moment's root, clip, and scale by the weight's root mean square."""
        decay = 1 - batch.step**-0.8
        for index, (param, grad) in enumerate(zip(batch.params, batch.grads, strict=True)):
            # The 1e-30 is the paper's eps_1; it keeps the root of an all-zero gradient above 0.
            state = batch.state_of(index)
            update = grad / second_moment_root(grad.square() + 1e-30, state, decay)
            clip_rms_(update, self.clip)
            yield update.mul_(rms(param).clamp(min=self.smallest))


def second_moment_root(
    square: Tensor,  # (m, ...) or (k,)
    state: State,
    decay: float,
) -> Tensor:  # as square
    """Update the second moment, and return its root; it is factored unless of a vector.

    Args:
        square: squared gradient, plus Adafactor's eps_1.
        state: of `AdaLomoDescent`, updated in place: "squares" of a vector, else "row_sums" and
            "column_sums".
        decay: of the second moment, in [0, 1).

    References:
        Lv et al. 2023, AdaLomo, arXiv 2310.10195, Algorithm 1.
    """
    if "squares" in state:
        return state["squares"].lerp_(square, 1 - decay).sqrt()
    root = factored_root(square.flatten(1), state["row_sums"], state["column_sums"], decay)
    return root.view_as(square)


def clip_rms_(update: Tensor, limit: float) -> None:
    """Scale `update` in place so that the root mean square of its entries is at most `limit`.

    Args:
        update: any shape.
        limit: largest allowed root mean square, above 0.

    References:
        Shazeer & Stern 2018, Adafactor, arXiv 1804.04235, Algorithm 4.
    """
    update.div_((rms(update) / limit).clamp(min=1))


def rms(tensor: Tensor) -> Tensor:  # ()
    """Return the root mean square of a tensor's entries."""
    return tensor.square().mean().sqrt()
