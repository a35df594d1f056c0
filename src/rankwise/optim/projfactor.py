"""ProjFactor, the optimizer of VLoRP: a projected first moment and a factored second one.

Source: VLoRP, arXiv 2505.01744. G is reshaped by the granularity c before it is projected: a row is
cut in c pieces, or 1/c rows are joined, and all pieces share one P. A budget of c r numbers per row
costs the same memory at every c.

Where we differ from the authors' code:

- One draw holds for all micro-batches of a step. Theirs draws again in every micro-batch of a step
  that refreshes, and projects back with the last draw.
- The momentum may be carried into a new subspace (`transport="project"`) or zeroed ("reset").
  Theirs keeps it, as our default "none" does; under the new basis it is noise.
- There is no `scale`, which cancels in their step.
- Clipping acts, on the projections. In theirs gradients are gone before the trainer clips them.
- The projector svd exists; their README promises it.
- For weights in bf16 and fp16 Adam's second moments, of vectors and dense groups, are fp32 as the
  sums are. Theirs are torch's AdamW's, in the weight's dtype, as with `dense_moments="weight"`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.gathering import GatheringOptimizer
from rankwise.optim.parts.precision import wide, wide_zeros
from rankwise.optim.parts.rules import AdamRule, SgdRule, WholeGradient, factored_root
from rankwise.optim.parts.stacked import settings
from rankwise.optim.parts.subspace import Subspace, basis_numbers, each, project


class ProjFactor(GatheringOptimizer):
    """Adam with a projected first moment and a second moment factored in the weight's own space.

        R = P^T G                                               (r, L)
        M <- b1 M + (1 - b1) R                                  (r, L)
        v_r, v_c <- sums of (P R)^2 over W's rows and columns, with decay b2
        W <- W - lr sqrt(1 - b2^t) / (1 - b1^t) * P M / (sqrt(v_r v_c^T / sum(v_r)) + eps)

    G is seen as (s, L), s being the shorter side, after it is cut by the granularity. P (s, r) is
    drawn with entries N(0, 1/r), drawn anew every `interval_steps`, and never kept. P R and P M are
    reshaped to W's shape. Vectors, and matrices of a group with `"dense": True`, step by Adam.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        rank: r, capped at the shorter side of the reshaped matrix.
        granularity: c. Rows of a tall matrix are cut in c pieces, or 1/c rows are joined.
        projector: "normal", "rademacher" and "orthonormal" draw the basis; "svd" and "rsvd" take
            leading singular vectors and keep them.
        transport: what happens to M when the basis changes: "none" keeps it as it is, "reset"
            zeroes it, "project" rotates it into the new basis.
        interval_steps: tau, steps between redraws of the basis.
        betas: decays of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        convention: where `eps` enters: "torch" after bias correction; "transformers" before it, as
            above, and weight decay then follows the step.
        weight_decay: decoupled, per unit of learning rate.
        dense_moments: dtype of the second moments of vectors and dense groups: "fp32" for weights
            in bf16 and fp16, or "weight", as torch's AdamW and the authors' code have it.
        release: project each gradient as it appears in backward, and free it.
        seed: of the bases.

    Raises:
        ValueError: a granularity that does not divide a matrix; a rank or interval below 1.

    References:
        VLoRP, arXiv 2505.01744.

    Example:
        >>> optimizer = ProjFactor(model.parameters(), lr=1e-4, rank=2, granularity=2.0)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    RELEASE = "gathered"  # planning reads it here, in the source, without importing torch

    def __init__(
        self,
        params: ParamsT,
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
        dense_moments: Literal["fp32", "weight"] = "fp32",
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    @classmethod
    def formula(cls, **options: object) -> str:
        """Return the formula of the numbers kept per matrix: those of the basis, M, v_r and v_c."""
        return f"{basis_numbers(**options)}L * r + m + n"

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return Adam for vectors and dense groups, else ProjFactor's descent."""
        betas, eps, convention = group["betas"], group["eps"], group["convention"]
        if group["dense"] or param.ndim < 2:
            return WholeGradient(AdamRule(betas, eps, convention, group["dense_moments"]))
        return ProjFactorDescent(Subspace.of(group), *betas, eps, convention)


@dataclass(frozen=True)
class ProjFactorDescent:
    """ProjFactor's mathematics; state: M (r, L), v_r (m), v_c (n), and P where it is kept."""

    space: Subspace
    b1: float
    b2: float
    eps: float
    convention: str

    def init_state(self, param: Tensor) -> State:
        rows, columns = param.flatten(1).shape
        return {
            **self.space.init_state(param),
            "momentum": torch.zeros_like(self.space.low(param)),
            "row_sums": wide_zeros(param, rows),
            "column_sums": wide_zeros(param, columns),
        }

    def gather(self, batch: Batch, *, refresh: bool = True) -> Tensor:
        """Project the gradients; a refresh also carries M into the new basis."""
        if refresh:
            # M is all that is kept in the subspace; SGD's rule carries it over when the basis
            # changes.
            self.space.refresh(batch, SgdRule(self.b1))
        return project(self.space, batch, self.space.basis(batch))

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield P M over the root of the second moment, with Adam's bias corrections."""
        low = self.gather(batch) if batch.gathered is None else batch.gathered  # (B, r, L)
        momentum = wide(batch.state["momentum"].lerp_(low, 1 - self.b1))
        low = wide(low)
        basis = each(wide(self.space.basis(batch)), len(batch.params))  # (B, s, r)
        # M restarts with a reset of the basis; the sums do not.
        first_correction = 1 - self.b1 ** self.space.rule_step(batch.step)
        second_correction = (1 - self.b2**batch.step) ** 0.5
        is_torch = self.convention == "torch"
        for index, param in enumerate(batch.params):
            whole = wide_zeros(param, *param.shape)
            # Two views of one memory: as (s, L) for products with P, as (m, n) for the sums.
            view, matrix = self.space.view(whole), whole.flatten(1)
            view.addmm_(basis[index], low[index]).square_()
            rows, columns = batch.state["row_sums"][index], batch.state["column_sums"][index]
            root = factored_root(matrix, rows, columns, self.b2)
            if is_torch:
                root.div_(second_correction)
            view.addmm_(basis[index], momentum[index], beta=0)
            matrix.div_(root.add_(self.eps))
            matrix.mul_((1.0 if is_torch else second_correction) / first_correction)
            yield whole
