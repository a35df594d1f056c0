"""APOLLO: the full gradient, each channel scaled as Adam would in a random subspace (Zhu et al. 2024, 2412.05270, Algorithm 1).

R = P'G with P ~ N(0, 1/r) redrawn every T steps, N = Adam(R), s_j = ||N_j|| / ||R_j|| a channel (a column of R), U = G s,
limited to ||U_t|| <= 1.01 ||U_{t-1}||, W <- W - lr sqrt(scale) U. APOLLO-Mini: r = 1 and one factor a tensor, ||N|| / ||R||.
Where we differ from the authors' code: P is redrawn from the seed at each step instead of kept (s r numbers less); the
paper's state is the same 2 L r and the limiter's norm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.rules import Adam, Elementwise, Rule, limit_growth_
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, basis_numbers, project


class Apollo(DescentOptimizer):
    """APOLLO; vectors and `dense` groups by Adam. `scaling` is by channel, or by tensor (Mini). Others as in ProjectedAdam."""

    @classmethod
    def formula(cls, **options: object) -> str:
        return f"{basis_numbers(**options)}2 * L * r + 1"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        rank: int,
        scaling: Literal["channel", "tensor"] = "channel",
        projector: Literal["normal", "rademacher", "orthonormal", "svd", "rsvd"] = "normal",
        interval_steps: int = 200,
        scale: float = 1.0,
        limit: float = 1.01,
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
        return Scaled(Subspace.of(group), rule, group["scaling"], group["scale"], group["limit"])


@dataclass(frozen=True)
class Scaled:
    """APOLLO's mathematics; state: Adam's two moments of R and the last update's norm (and P where it is not drawn)."""

    space: Subspace
    rule: Rule
    scaling: str
    scale: float
    limit: float

    def init_state(self, param: Tensor) -> State:
        low = self.rule.init_state(self.space.low(param))
        return {**self.space.init_state(param), **low, "update_norm": param.new_zeros(())}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        self.space.refresh(batch, self.rule)
        low = project(self.space, batch, self.space.basis(batch))  # (B, r, L)
        step = self.rule.direction(low, batch.state, batch.step)
        over = 1 if self.scaling == "channel" else (1, 2)
        factor = step.norm(dim=over, keepdim=True) / (
            low.norm(dim=over, keepdim=True) + 1e-8
        )  # (B, 1, L or 1)
        for index, grad in enumerate(batch.grads):
            whole = grad.clone(memory_format=torch.contiguous_format)
            update = self.space.view(whole)
            update.mul_(factor[index])
            limit_growth_(update, batch.state["update_norm"][index], self.limit)
            yield whole.mul_(self.scale**0.5)
