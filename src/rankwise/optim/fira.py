"""Fira: a projected Adam step, plus the part of the gradient outside the subspace, scaled to match.

Source: Chen et al. 2024, arXiv 2410.01623, eq. 7 and 8.
Where we differ from the authors' code:

- It subtracts scale * P R from the gradient, which leaves (1 - scale) of the part inside the
  subspace in the residual. The paper subtracts P R, which is our default; `residual="published"` is
  theirs.
- After a residual of zeros theirs lets the norm grow from 1e-8, so it stays near zero. Ours does
  not limit the first residual that is not zero.
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
from rankwise.optim.parts.subspace import Subspace, each, project


class Fira(DescentOptimizer):
    """GaLore's step, plus the gradient's residual outside the subspace.

        R = P^T G,  N = Adam(R)                             (r, L)
        phi_j = ||N_j|| / ||R_j||                           for each column j
        S = phi * (G - P R), scaled to ||S_t|| / c_t <= limit * ||S_{t-1}|| / c_{t-1}
        W <- W - lr * (scale * P N + S)

    G is seen as (s, L), s being the shorter side; P (s, r) holds leading left singular vectors. The
    ratio phi is Adam's scaling of a column as the subspace sees it. Adam's bias correction
    c_t = sqrt(1 - b2^t) / (1 - b1^t) is a factor of N and S; the growth is that without it.
    Vectors, and matrices of a group with `"dense": True`, step by Adam.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        rank: r, capped at the matrix's shorter side.
        projector: "svd", or "rsvd" (randomized).
        oversample: columns of rsvd's sketch beyond r.
        power_iterations: of rsvd.
        interval_steps: steps between refreshes of the basis.
        scale: what the projected step is multiplied by.
        limit: largest ratio of the residual's norms of two steps, before bias correction.
        residual: "paper" subtracts P R from the gradient, "published" subtracts scale * P R.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        convention: where `eps` enters: "torch" after bias correction; "transformers" before it, and
            weight decay then follows the step.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.
        seed: of rsvd's sketches.

    Raises:
        ValueError: a rank or interval below 1.

    References:
        Chen et al. 2024, Fira, arXiv 2410.01623, eq. 7 and 8.

    Example:
        >>> optimizer = Fira(model.parameters(), lr=1e-4, rank=4)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "s * r + 2 * L * r + 1"

    def __init__(
        self,
        params: ParamsT,
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
        """Return Adam for vectors and dense groups, else Fira's descent."""
        rule = AdamRule(group["betas"], group["eps"], group["convention"])
        if group["dense"] or param.ndim < 2:
            return WholeGradient(rule)
        subtracted = group["scale"] if group["residual"] == "published" else 1.0
        return FiraDescent(Subspace.of(group), rule, group["scale"], group["limit"], subtracted)


@dataclass(frozen=True)
class FiraDescent:
    """Fira's mathematics; state: P, Adam's two moments of R, and the last residual's norm."""

    space: Subspace
    rule: AdamRule
    scale: float
    limit: float
    subtracted: float  # share of P R that is taken from the gradient

    def init_state(self, param: Tensor) -> State:
        return {
            **self.space.init_state(param),
            **self.rule.init_state(self.space.low(param)),
            "residual_norm": wide_zeros(param),
        }

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield scale * P N plus the scaled residual, whose norm grows at most by `limit`."""
        self.space.refresh(batch, self.rule)
        basis = each(self.space.basis(batch), len(batch.params))  # (B, s, r)
        low = project(self.space, batch, basis)  # (B, r, L)
        step = self.rule.direction(low, batch.state, batch.step)  # (B, r, L)
        ratio = column_ratio(step, low).to(low.dtype)  # (B, L)
        step = step.to(low.dtype)
        correction = self.rule.correction(batch.step)
        for index, grad in enumerate(batch.grads):
            whole = grad.clone(memory_format=torch.contiguous_format)
            update = self.space.view(whole)
            scale_residual_(update, basis[index], low[index], ratio[index], self.subtracted)
            last_norm = batch.state["residual_norm"][index]
            limit_growth_(update, last_norm, self.limit, correction)
            update.addmm_(basis[index], step[index], alpha=self.scale)
            yield whole


def column_ratio(
    step: Tensor,  # (..., r, L)
    low: Tensor,  # (..., r, L)
) -> Tensor:  # (..., L)
    """Return phi: how much Adam scales each column of the projected gradient.

    The 1e-8 is the authors' guard against a column of zeros.

    Args:
        step: N, Adam's direction in the subspace.
        low: R, the projected gradient.

    References:
        Chen et al. 2024, Fira, arXiv 2410.01623, eq. 7 and 8.
    """
    return step.norm(dim=-2) / (wide(low).norm(dim=-2) + 1e-8)


def scale_residual_(
    grad: Tensor,  # (s, L), replaced by the scaled residual
    basis: Tensor,  # (s, r)
    low: Tensor,  # (r, L)
    ratio: Tensor,  # (L,)
    subtracted: float,
) -> None:
    """Set `grad` to phi * (G - subtracted * P R), column by column.

    Args:
        grad: G, the gradient as the subspace views it.
        basis: P.
        low: R, the projected gradient.
        ratio: phi, from `column_ratio`.
        subtracted: share of P R that is taken from the gradient: 1 in the paper, `scale` in the
            authors' code.

    References:
        Chen et al. 2024, Fira, arXiv 2410.01623, eq. 7 and 8.
    """
    grad.addmm_(basis, low, alpha=-subtracted).mul_(ratio)
