"""Fira: a projected step, plus the part of the gradient that the subspace does not see, scaled to match (Chen et al. 2024).

R = P'G, N = Adam(R), W <- W - lr [alpha P N + S], S = phi (G - P R), phi_j = ||N_j|| / ||R_j|| for each column j of the
projected gradient (2410.01623, eq. 7 and 8); the limiter then holds ||S_t|| <= 1.01 ||S_{t-1}||.
Where we differ from the authors' code: it subtracts alpha P R, which leaves (1 - alpha) of the part inside the subspace in the
residual; the paper's form, here the default, subtracts P R. `residual: published` is theirs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.rules import Adam, Elementwise, Rule, limit_growth_
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, each, project


class Fira(DescentOptimizer):
    """Fira; vectors and `dense` groups by Adam. Options as in ProjectedAdam, and `limit`, the growth that S may have a step."""

    STATE = "s * r + 2 * L * r + 1"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        rank: int,
        projector: Literal["svd", "rsvd"] = "svd",
        oversample: int = 4,
        power_iterations: int = 1,
        interval_steps: int = 200,
        scale: float = 0.25,
        limit: float = 1.01,
        residual: Literal["paper", "published"] = "paper",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        convention: Literal["torch", "transformers"] = "transformers",
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        rule = Adam(group["betas"], group["eps"], group["convention"])
        if group["dense"] or param.ndim < 2:
            return Elementwise(rule)
        kept = group["scale"] if group["residual"] == "published" else 1.0
        return Residual(Subspace.of(group), rule, group["scale"], group["limit"], kept)


@dataclass(frozen=True)
class Residual:
    """Fira's mathematics; state: P, Adam's two moments of R, and the last residual's norm."""

    space: Subspace
    rule: Rule
    scale: float
    limit: float
    subtracted: float

    def init_state(self, param: Tensor) -> State:
        low = self.rule.init_state(self.space.low(param))
        return {**self.space.init_state(param), **low, "residual_norm": param.new_zeros(())}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        self.space.refresh(batch, self.rule)
        basis = each(self.space.basis(batch), len(batch.params))
        low = project(self.space, batch, basis)  # (B, r, L)
        step = self.rule.direction(low, batch.state, batch.step)
        ratio = step.norm(dim=1) / (low.norm(dim=1) + 1e-8)  # (B, L)
        for index, grad in enumerate(batch.grads):
            whole = grad.clone(memory_format=torch.contiguous_format)
            residual = self.space.view(whole)
            residual.addmm_(basis[index], low[index], alpha=-self.subtracted).mul_(ratio[index])
            limit_growth_(residual, batch.state["residual_norm"][index], self.limit)
            residual.addmm_(basis[index], step[index], alpha=self.scale)
            yield whole
