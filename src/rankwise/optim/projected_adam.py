"""Adam inside a low-rank subspace of the gradient: G (m, n) -> R = P'G (r, n) -> Adam -> P D.

Source: GaLore (Zhao et al. 2024, Algorithm 1). With `projector: rsvd, side: left, rank_rule: proportional` it is the
rSVDAdam of published system A: the projected side is always the rows, every tensor of two or more dimensions is projected
(embeddings too), the moments are neither rotated nor reset when P changes. Two differences: the basis is refreshed at
steps 1, T+1, 2T+1, ... also for T = 1 (there: never again), and the sketch is drawn from a seed and the step, not from the
global generator, so that a resumed run draws the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rankwise.optim.descent import DescentOptimizer, State
from rankwise.optim.projectors import basis
from rankwise.optim.rules import Adam


@dataclass(frozen=True)
class ProjectedAdam:
    """Settings of the optimizer. State of a projected matrix: P (side, r) and two moments (r, other side)."""

    rank: int
    rank_rule: Literal["fixed", "proportional"] = "fixed"
    reference_width: int = 768
    projector: Literal["svd", "rsvd"] = "svd"
    side: Literal["short", "left", "right"] = "short"
    oversample: int = 4
    power_iterations: int = 1
    interval_steps: int = 200
    scale: float = 0.25
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def build(self, params: Iterable[Tensor], learning_rate: float, seed: int = 0) -> torch.optim.Optimizer:
        """An optimizer over `params`: matrices projected, vectors by Adam."""
        params = list(params)
        inner = Adam(tuple(self.betas), self.eps)
        groups = [
            {"params": [p for p in params if p.ndim >= 2], "descent": Projected(self, inner, seed)},
            {"params": [p for p in params if p.ndim < 2], "descent": inner},
        ]
        return DescentOptimizer([g for g in groups if g["params"]], learning_rate, self.weight_decay)

    def matrix_rank(self, shape: tuple[int, int]) -> int:
        """The rank of one matrix: `rank`, or its share of the shorter side, `rank / reference_width` (at least 1)."""
        short = min(shape)
        wanted = self.rank if self.rank_rule == "fixed" else self.rank * short // self.reference_width
        return min(max(1, wanted), short)


@dataclass(frozen=True)
class Projected:
    """Run `inner` on the projected gradient of one matrix; a tensor of more dimensions is flattened to (first, rest)."""

    settings: ProjectedAdam
    inner: Adam = field(default_factory=Adam)
    seed: int = 0

    def init_state(self, param: Tensor) -> State:
        m, n = matrix = self._oriented(param.shape)
        rank = self.settings.matrix_rank(matrix)
        return {"basis": param.new_zeros(m, rank), **self.inner.init_state(param.new_empty(rank, n))}

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        matrix = grad.flatten(1)
        flipped = self._oriented(grad.shape) != tuple(matrix.shape)
        g = matrix.mT if flipped else matrix
        if (step - 1) % self.settings.interval_steps == 0:
            state["basis"].copy_(self._basis(g, step))
        low = self.inner.direction(state["basis"].mT @ g, state, step)
        full = self.settings.scale * (state["basis"] @ low)
        return (full.mT if flipped else full).reshape(grad.shape)

    def _oriented(self, shape: torch.Size) -> tuple[int, int]:
        """(projected side, other side) of the matrix."""
        m, n = shape[0], shape[1:].numel()
        left = self.settings.side == "left" or (self.settings.side == "short" and m < n)
        return (m, n) if left else (n, m)

    def _basis(self, g: Tensor, step: int) -> Tensor:
        s = self.settings
        rank = s.matrix_rank(tuple(g.shape))
        return basis(s.projector, g, rank, s.oversample, s.power_iterations, seed=self.seed * 1_000_003 + step)
