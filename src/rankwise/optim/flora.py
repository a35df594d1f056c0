"""Flora: Adafactor whose momentum is kept as a random projection.

Source: Hao, Cao & Mou 2024, arXiv 2402.03293, Algorithm 2, with what the authors' code adds to it:
Adafactor's normalisation, its clipping after the momentum, and its relative rate.
Where we differ from the authors' code:

- Momentum is projected in all matrices except those of groups with `dense`. Theirs leaves out
  matrices whose one side is more than four times the other, and those with a side below the rank;
  here the rank is then the shorter side.
- A weight of more than two dimensions is a matrix of its first one by the rest. Theirs keeps its
  whole second moment.
- Gradient accumulation is the trainer's, uncompressed.
- Matrices of one shape share a draw.
- The momentum has the weight's dtype, theirs is fp32. Second moments are fp32 in both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.precision import wide
from rankwise.optim.parts.relative import clip_rms_, init_squares, normalised, relative_
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace


class Flora(DescentOptimizer):
    """Adafactor whose momentum is a random projection.

        v_r, v_c <- sums of G^2 over rows and columns, with decay 1 - t^-0.8
        U = G / sqrt(v_r v_c^T / sum(v_r))
        D = momentum * P M + (1 - momentum) * U
        M <- momentum * M + (1 - momentum) P^T U                (r, L)
        D <- D / max(1, RMS(D) / clip)
        W <- (1 - rate * weight_decay) W - rate * D,  rate = lr * max(smallest, RMS(W))

    G is seen as (s, L), s being the shorter side; P (s, r) is drawn with entries N(0, 1/r) and
    never kept. The fresh update U enters the step whole; only the momentum of earlier ones is
    projected. At each step t that `interval_steps` divides, P_new is drawn after D was computed,
    and M <- P_new^T (momentum * P M + (1 - momentum) U). RMS is the root mean square of a tensor's
    entries. Vectors, and matrices of a group with `"dense": True`, keep a whole momentum.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate, relative to the weight's root mean square with `scale_parameter`.
        rank: r, capped at the matrix's shorter side.
        projector: entries of the basis: "normal" or "rademacher" (of one size, with random signs).
        interval_steps: kappa, steps between redraws of the basis.
        momentum: decay of M, in [0, 1).
        clip: largest root mean square of D.
        scale_parameter: multiply the learning rate by max(smallest, RMS(W)), as the authors' code
            does by default; if false the rate is `lr`.
        smallest: least root mean square that a weight counts with, so that zero weights can move.
        weight_decay: decoupled, per unit of the learning rate that is really used.
        release: step inside backward and free each gradient.
        seed: of the bases.

    Raises:
        ValueError: a rank or interval below 1.

    References:
        Hao, Cao & Mou 2024, Flora, arXiv 2402.03293, Algorithm 2.
        Shazeer & Stern 2018, Adafactor, arXiv 1804.04235, Algorithm 4.

    Example:
        >>> optimizer = Flora(model.parameters(), lr=1e-2, rank=4)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "L * r + m + n"
    DENSE = "k + m + n"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        *,
        rank: int,
        projector: Literal["normal", "rademacher"] = "normal",
        interval_steps: int = 1000,
        momentum: float = 0.9,
        clip: float = 1.0,
        scale_parameter: bool = True,
        smallest: float = 1e-3,
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return Flora's descent; its momentum is whole for vectors and dense groups."""
        is_whole = group["dense"] or param.ndim < 2
        return FloraDescent(
            None if is_whole else Subspace.of(group),
            group["momentum"],
            group["clip"],
            group["smallest"] if group["scale_parameter"] else None,
            group["weight_decay"],
        )


@dataclass(frozen=True)
class FloraDescent:
    """Flora's mathematics; state: M (r, L), v_r (m), v_c (n); or whole M, and v (k) of a vector."""

    CONTAINS_DECAY: ClassVar[bool] = True

    space: Subspace | None  # None: the momentum is not projected
    momentum: float
    clip: float
    smallest: float | None  # None: the learning rate is not relative to the weight
    weight_decay: float

    def init_state(self, param: Tensor) -> State:
        kept = param if self.space is None else self.space.low(param)
        return {"momentum": torch.zeros_like(kept), **init_squares(param)}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield the clipped mean of the normalised gradient and its projected momentum."""
        basis, next_basis = self._bases(batch)
        for index, (param, grad) in enumerate(zip(batch.params, batch.grads, strict=True)):
            state = batch.state_of(index)
            update = normalised(grad, state, batch.step)
            if basis is None:
                update.lerp_(wide(state["momentum"]), self.momentum)
                state["momentum"].copy_(update)
            else:
                view = self.space.view(update)
                add_momentum_(view, state["momentum"], basis, next_basis, self.momentum)
            clip_rms_(update, self.clip)
            if self.smallest is not None:
                relative_(update, param, self.smallest, self.weight_decay)
            elif self.weight_decay:
                update.add_(wide(param), alpha=self.weight_decay)
            yield update

    def _bases(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Return the basis that the momentum is in, and the next one if this step redraws it."""
        if self.space is None:
            return None, None
        basis = wide(self.space.basis(batch))
        if batch.step % self.space.interval_steps:
            return basis, None
        return basis, wide(self.space.basis(batch, batch.step + 1))


def add_momentum_(
    update: Tensor,  # (s, L), U; replaced by D
    momentum: Tensor,  # (r, L), M; updated in place
    basis: Tensor,  # (s, r)
    next_basis: Tensor | None,  # (s, r)
    decay: float,
) -> None:
    """Set U to D = decay * P M + (1 - decay) U, and let U enter M.

    Args:
        update: U, in fp32 or fp64.
        momentum: M, in the basis `basis`; afterwards in `next_basis` if there is one.
        basis: P.
        next_basis: P_new, or None if the basis stays.
        decay: of M, in [0, 1).

    References:
        Hao, Cao & Mou 2024, Flora, arXiv 2402.03293, Algorithm 2.
    """
    low = basis.mT @ update if next_basis is None else None
    update.addmm_(basis, wide(momentum), beta=1 - decay, alpha=decay)
    if low is not None:
        momentum.lerp_(low.to(momentum.dtype), 1 - decay)
    else:
        # P_new^T D is the sum of the carried momentum and the fresh update in the new basis.
        momentum.copy_(next_basis.mT @ update)
