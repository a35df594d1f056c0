"""FRUGAL: AdamW in a part of each matrix that changes from time to time, signSGD in all the rest.

Source: Zmushko et al. 2024, arXiv 2411.07837, Algorithm 1. The part is a choice of columns, or the
span of leading singular vectors. The moments start at zero whenever the part changes.
Where we differ: the paper's third choice, whole blocks of parameters, is not offered, because the
state of a parameter here follows from its shape.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.precision import wide
from rankwise.optim.parts.rules import AdamRule, WholeGradient
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, project


class Frugal(DescentOptimizer):
    """AdamW on a share of each gradient, and the sign of what is left.

        columns: C, a share of the columns            svd: P, a share of the left singular vectors
        D_C = Adam(G_C)                               D = P Adam(P^T G)
        D = free_scale * sign(G) elsewhere            D <- D + free_scale * sign(G - P P^T G)
        W <- (1 - lr * weight_decay) W - lr * D

    For svd G is seen as (s, L), s being the shorter side; with `density` 1 nothing is left, and no
    sign is taken of rounding. Every `interval_steps` steps C or P is new, and the moments are zero.
    Vectors, and matrices of a group with `"dense": True`, step by AdamW.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        density: share of the n columns, or of the s singular vectors, that has state, in (0, 1];
            rounded down, at least one.
        part: "columns", drawn from the seed, or "svd", found in the gradient.
        free_scale: learning rate of the signs, as a multiple of `lr`; the paper takes 1 for
            pre-training and 0.1 for fine-tuning.
        interval_steps: steps between two choices.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.
        seed: of the columns.

    References:
        Zmushko et al. 2024, FRUGAL, arXiv 2411.07837, Algorithm 1.

    Example:
        >>> optimizer = Frugal(model.parameters(), lr=1e-3, density=0.25)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    MATRICES_APART = True  # planning reads it: `dense` has a meaning

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        density: float = 0.25,
        part: Literal["columns", "svd"] = "columns",
        free_scale: float = 0.1,
        interval_steps: int = 200,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    @classmethod
    def formula(cls, *, part: str, **options: object) -> str:
        """Return the formula of the numbers kept per matrix: moments, and P for svd."""
        if part == "columns":
            return "2 * m * max(1, int(density * n))"
        return "(s + 2 * L) * max(1, int(density * s))"

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return AdamW for vectors and dense groups, else FRUGAL's descent."""
        rule = AdamRule(group["betas"], group["eps"])
        if group["dense"] or param.ndim < 2:
            return WholeGradient(rule)
        interval, seed = group["interval_steps"], group["seed"]
        if group["part"] == "columns":
            return FrugalColumns(group["density"], rule, group["free_scale"], interval, seed)
        count = share(group["density"], min(param.flatten(1).shape))
        space = Subspace(count, interval_steps=interval, transport="reset", seed=seed)
        return FrugalSubspace(space, rule, group["free_scale"])


def share(density: float, size: int) -> int:
    """Return how many of `size` columns or vectors have state, at least one.

    Args:
        density: their share, in (0, 1]; the number is rounded down.
        size: how many there are.
    """
    return max(1, int(density * size))


@dataclass(frozen=True)
class FrugalColumns:
    """FRUGAL with columns; state: Adam's moments (m, r) of the r columns."""

    density: float
    rule: AdamRule
    free_scale: float
    interval_steps: int
    seed: int

    def init_state(self, param: Tensor) -> State:
        rows, columns = param.flatten(1).shape
        return self.rule.init_state(param.new_empty(rows, share(self.density, columns)))

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield the scaled signs, with Adam's direction in the chosen columns."""
        since = (batch.step - 1) % self.interval_steps  # steps since the columns were chosen
        if since == 0 and batch.step > 1:
            for moment in batch.state.values():
                moment.zero_()
        chosen = self._columns(batch.params[0], batch.step - since)
        for index, grad in enumerate(batch.grads):
            matrix = grad.flatten(1)
            own = matrix.index_select(1, chosen)
            step = self.rule.direction(own, batch.state_of(index), since + 1)
            whole = wide(matrix).sign().mul_(self.free_scale)
            yield whole.index_copy_(1, chosen, step).view_as(grad)

    def _columns(self, param: Tensor, first_step: int) -> Tensor:  # (r,)
        """Draw the columns; those of one shape share the draw, which no state has to keep."""
        columns = param.flatten(1).shape[1]
        count = share(self.density, columns)
        if param.is_meta:
            return torch.empty(count, dtype=torch.int64, device="meta")
        generator = torch.Generator(param.device)
        generator.manual_seed(self.seed * 1_000_003 + first_step)
        drawn = torch.randperm(columns, generator=generator, device=param.device)
        return drawn[:count].sort().values


@dataclass(frozen=True)
class FrugalSubspace:
    """FRUGAL with singular vectors; state: P (s, r), and Adam's two moments (r, L)."""

    space: Subspace
    rule: AdamRule
    free_scale: float

    def init_state(self, param: Tensor) -> State:
        return {**self.space.init_state(param), **self.rule.init_state(self.space.low(param))}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield P times Adam's direction of P^T G, plus the scaled signs of the rest of G."""
        self.space.refresh(batch, self.rule)
        basis = self.space.basis(batch)  # (B, s, r)
        low = project(self.space, batch, basis)  # (B, r, L)
        steps = self.rule.direction(low, batch.state, self.space.rule_step(batch.step))
        steps = steps.to(basis.dtype)
        is_whole = basis.shape[1] == basis.shape[2]  # then the rest is rounding, which has a sign
        for index, grad in enumerate(batch.grads):
            whole = grad.clone(memory_format=torch.contiguous_format)
            update = self.space.view(whole)
            if is_whole:
                update.zero_()
            else:
                update.addmm_(basis[index], low[index], alpha=-1).sign_().mul_(self.free_scale)
            update.addmm_(basis[index], steps[index])
            yield whole
