"""APOLLO: the full gradient, with each channel scaled as Adam would scale it in a random subspace.

Source: Zhu et al. 2024, arXiv 2412.05270, Algorithm 1. APOLLO-Mini is `rank=1, scaling="tensor"`.
Where we differ from the authors' code:

- It keeps P. Here P is redrawn from the seed at each step, so s r numbers less are kept. That is
  the paper's state: 2 L r numbers and the limiter's norm.
- After an update of zeros theirs lets the norm grow from 1e-8, so it stays near zero. Ours does not
  limit the first update that is not zero.
- For weights in bf16 and fp16 second moments and the norm are fp32, theirs have the weight's dtype.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.precision import wide, wide_zeros
from rankwise.optim.parts.rules import AdamRule, WholeGradient, limit_growth_
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, basis_numbers, project


class Apollo(DescentOptimizer):
    """SGD whose channels are scaled by Adam in a random subspace.

        R = P^T G,  N = Adam(R)                             (r, L)
        f_j = ||N_j|| / ||R_j||                             per column j, or one f for the tensor
        U = f * G, scaled to ||U_t|| / c_t <= limit * ||U_{t-1}|| / c_{t-1}
        W <- W - lr * sqrt(scale) * U

    G is seen as (s, L), s being the shorter side; P (s, r) is drawn with entries N(0, 1/r). Adam's
    bias correction c_t = sqrt(1 - b2^t) / (1 - b1^t) is a factor of N and U; the growth is that
    without it. Vectors, and matrices of a group with `"dense": True`, step by Adam.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        rank: r, capped at the matrix's shorter side.
        scaling: one factor per "channel" (a column of R), or one per "tensor" (APOLLO-Mini).
        projector: "normal", "rademacher" and "orthonormal" draw the basis; "svd" and "rsvd" take
            leading singular vectors and keep them.
        interval_steps: steps between refreshes of the basis.
        scale: its root multiplies the update; the authors take 1 for APOLLO and 128 for
            APOLLO-Mini.
        limit: largest ratio of the update's norms of two steps, before bias correction.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        convention: where `eps` enters: "torch" after bias correction; "transformers" before it, and
            weight decay then follows the step.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.
        seed: of the bases.

    Raises:
        ValueError: a rank or interval below 1.

    References:
        Zhu et al. 2024, APOLLO, arXiv 2412.05270, Algorithm 1.

    Example:
        >>> optimizer = Apollo(model.parameters(), lr=1e-4, rank=1, scaling="tensor", scale=128.0)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
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

    @classmethod
    def formula(cls, **options: object) -> str:
        """Return the formula of the numbers kept per matrix: basis, moments and a norm."""
        return f"{basis_numbers(**options)}2 * L * r + 1"

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return Adam for vectors and dense groups, else APOLLO's descent."""
        rule = AdamRule(group["betas"], group["eps"], group["convention"])
        if group["dense"] or param.ndim < 2:
            return WholeGradient(rule)
        per_channel = group["scaling"] == "channel"
        return ApolloDescent(Subspace.of(group), rule, per_channel, group["scale"], group["limit"])


@dataclass(frozen=True)
class ApolloDescent:
    """APOLLO's mathematics; state: Adam's moments of R, the last update's norm, P if it is kept."""

    space: Subspace
    rule: AdamRule
    per_channel: bool
    scale: float
    limit: float

    def init_state(self, param: Tensor) -> State:
        return {
            **self.space.init_state(param),
            **self.rule.init_state(self.space.low(param)),
            "update_norm": wide_zeros(param),
        }

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Scale each gradient by `scaling_factor`, and limit the growth of its norm."""
        self.space.refresh(batch, self.rule)
        low = project(self.space, batch, self.space.basis(batch))  # (B, r, L)
        step = self.rule.direction(low, batch.state, batch.step)  # (B, r, L)
        factor = scaling_factor(step, low, self.per_channel).to(low.dtype)
        correction = self.rule.correction(batch.step)
        for index, grad in enumerate(batch.grads):
            whole = grad.clone(memory_format=torch.contiguous_format)
            update = self.space.view(whole)
            update.mul_(factor[index])
            last_norm = batch.state["update_norm"][index]
            limit_growth_(update, last_norm, self.limit, correction)
            yield whole.mul_(self.scale**0.5)


def scaling_factor(
    step: Tensor,  # (B, r, L)
    low: Tensor,  # (B, r, L)
    per_channel: bool,
) -> Tensor:  # (B, 1, L), or (B, 1, 1)
    """Return how much Adam scales each column of R, or R as a whole.

    The 1e-8 is the authors' guard against a column of zeros.

    Args:
        step: N, Adam's direction in the subspace.
        low: R, the projected gradient.
        per_channel: one factor per column; if false, one for the whole tensor (APOLLO-Mini).

    References:
        Zhu et al. 2024, APOLLO, arXiv 2412.05270, Algorithm 1.
    """
    dims = (1,) if per_channel else (1, 2)
    return step.norm(dim=dims, keepdim=True) / (wide(low).norm(dim=dims, keepdim=True) + 1e-8)
