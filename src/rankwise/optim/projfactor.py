"""ProjFactor, the optimizer of VLoRP: first moment projected, second moment factored in the weight's own space (2505.01744).

G (m, n) is reshaped by the granularity c (a row is cut in c pieces, or 1/c rows are glued) and projected with P ~ N(0, 1/r),
the same for all pieces: R = P'G, M <- b1 M + (1 - b1) R, G_o = P R, v_r <- b2 v_r + (1 - b2) (G_o^2) 1, v_c likewise,
W <- W - lr sqrt(1 - b2^t) / (1 - b1^t) (P M) / (sqrt(v_r v_c' / sum v_r) + eps). Budget c r numbers a row, whatever c.
P is redrawn every `interval_steps` and never kept. The sums v_r, v_c belong to G_o, in the shape of W.
Where we differ from the authors' code: one draw holds for all micro-batches of a step (theirs changes within a step that
refreshes, and projects back with the last); the momentum may be carried into a new subspace (`transport: project`; theirs
keeps it, where it is noise, as our default none does) or zeroed; no `scale`, which cancels in it; clipping acts, on the
projections; projector svd, which its README promises, is there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.rules import Adam, Elementwise, Sgd, factored_root
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, basis_numbers, each, project


class ProjFactor(DescentOptimizer):
    """ProjFactor; vectors and `dense` groups by Adam. Options as in ProjectedAdam.

    Raises:
        ValueError: a granularity that does not divide a matrix.
    """

    RELEASE = "gathered"

    @classmethod
    def formula(cls, **options: object) -> str:
        return f"{basis_numbers(**options)}L * r + m + n"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        rank: int,
        granularity: float = 1.0,
        projector: Literal["normal", "rademacher", "svd", "rsvd", "orthonormal"] = "normal",
        transport: Literal["none", "reset", "project"] = "none",
        interval_steps: int = 50,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        convention: Literal["torch", "transformers"] = "transformers",
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        if group["dense"] or param.ndim < 2:
            return Elementwise(Adam(group["betas"], group["eps"], group["convention"]))
        return FactoredOutside(
            Subspace.of(group), *group["betas"], group["eps"], group["convention"]
        )


@dataclass(frozen=True)
class FactoredOutside:
    """ProjFactor's mathematics; state: M (r, L), v_r (m), v_c (n)."""

    space: Subspace
    b1: float
    b2: float
    eps: float
    convention: str

    def init_state(self, param: Tensor) -> State:
        rows, columns = param.flatten(1).shape
        sums = {"row_sums": param.new_zeros(rows), "column_sums": param.new_zeros(columns)}
        return {
            **self.space.init_state(param),
            "momentum": torch.zeros_like(self.space.low(param)),
            **sums,
        }

    @property
    def _momentum(self) -> Sgd:
        """What is kept in the subspace, and so carried over when it changes."""
        return Sgd(self.b1)

    def gather(self, batch: Batch, *, first: bool = True) -> Tensor:
        if first:
            self.space.refresh(batch, self._momentum)
        return project(self.space, batch, self.space.basis(batch))

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        low = self.gather(batch) if batch.gathered is None else batch.gathered  # (B, r, L)
        momentum = batch.state["momentum"].lerp_(low, 1 - self.b1)
        basis = each(self.space.basis(batch), len(batch.params))
        first, second = (
            1 - self.b1 ** self.space.rule_step(batch.step),
            (1 - self.b2**batch.step) ** 0.5,
        )
        for index, param in enumerate(batch.params):
            whole = torch.zeros_like(param)
            view, matrix = self.space.view(whole), whole.flatten(1)
            view.addmm_(basis[index], low[index]).square_()
            root = factored_root(
                matrix, batch.state["row_sums"][index], batch.state["column_sums"][index], self.b2
            )
            if self.convention == "torch":
                root.div_(second)
            view.addmm_(basis[index], momentum[index], beta=0)
            matrix.div_(root.add_(self.eps)).mul_(
                (1.0 if self.convention == "torch" else second) / first
            )
            yield whole
