"""Flora: momentum kept as a random projection (Hao, Cao & Mou 2024, 2402.03293, Algorithm 2).

U = G / sqrt(v), v factored from row and column sums (Adafactor, decay 1 - t^-0.8), limited to a root mean square of 1;
M <- b1 M + (1 - b1) P'U with P ~ N(0, 1/r); W <- W - lr P M. Every `interval_steps` (kappa) P is redrawn from the seed, and the
momentum carried over, M <- P_new' P M. P is never kept.
Where we differ from the authors' code: the short side is projected, as theirs does for tall matrices; gradient accumulation
is the trainer's, uncompressed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.rules import Elementwise, Factored, Sgd, factored_root
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, each


class Flora(DescentOptimizer):
    """Flora; vectors and `dense` groups by Adam with a factored second moment. Options as in ProjectedAdam."""

    STATE = "L * r + m + n"
    DENSE = "k + m + n"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        rank: int,
        projector: Literal["normal", "rademacher"] = "normal",
        interval_steps: int = 1000,
        momentum: float = 0.9,
        clip: float = 1.0,
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, {**settings(locals()), "transport": "project"}, release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        if group["dense"] or param.ndim < 2:
            return Elementwise(Factored((group["momentum"], 0.999)))
        return ProjectedMomentum(Subspace.of(group), group["momentum"], group["clip"])


@dataclass(frozen=True)
class ProjectedMomentum:
    """Flora's mathematics; state: M (r, L), v_r (m), v_c (n)."""

    space: Subspace
    momentum: float
    clip: float

    def init_state(self, param: Tensor) -> State:
        rows, columns = param.flatten(1).shape
        sums = {"row_sums": param.new_zeros(rows), "column_sums": param.new_zeros(columns)}
        return {"momentum": torch.zeros_like(self.space.low(param)), **sums}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        self.space.refresh(batch, Sgd(self.momentum))
        basis = each(self.space.basis(batch), len(batch.params))
        decay = 1 - batch.step**-0.8
        for index, grad in enumerate(batch.grads):
            state = {key: value[index] for key, value in batch.state.items()}
            update = factored_root(
                grad.flatten(1).square() + 1e-30, state["row_sums"], state["column_sums"], decay
            )
            torch.div(grad.flatten(1), update, out=update)
            update.div_((update.square().mean().sqrt() / self.clip).clamp(min=1))
            momentum = state["momentum"].lerp_(
                basis[index].mT @ self.space.view(update), 1 - self.momentum
            )
            self.space.view(update).addmm_(basis[index], momentum, beta=0)
            yield update.view_as(grad)
