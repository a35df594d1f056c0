"""Flora: momentum kept as a random projection, behind Adafactor's normalisation.

Source: Hao, Cao & Mou 2024, arXiv 2402.03293, Algorithm 2.
Where we differ from the authors' code:

- The shorter side is projected; theirs does so for tall matrices.
- Theirs multiplies the update by RMS(W) by default; ours does not.
- Theirs adds the fresh update without a projection; ours projects it too, with the momentum.
- Theirs clips the update to a root mean square of 1 after momentum, ours before it is projected. A
  back-projection is longer than what was projected, so the root mean square of our step over lr may
  be several times 1 (at rank 8 on a square matrix); theirs is at most 1, or RMS(W) by default.
- Gradient accumulation is the trainer's, uncompressed.
- Sums have the weight's dtype; theirs are fp32. In bf16 a sum near its limit no longer decays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.rules import FactoredRule, SgdRule, WholeGradient, factored_root
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, each


class Flora(DescentOptimizer):
    """Adafactor whose momentum is a random projection.

        v_r, v_c <- sums of G^2 over rows and columns, with decay 1 - t^-0.8
        U = G / sqrt(v_r v_c^T / sum(v_r))
        U <- U / max(1, RMS(U) / clip)
        M <- momentum * M + (1 - momentum) P^T U                (r, L)
        W <- (1 - lr * weight_decay) W - lr * P M

    G is seen as (s, L), s being the shorter side; P (s, r) is drawn with entries N(0, 1/r) and
    never kept. Every `interval_steps` it is drawn anew, and M <- P_new^T P_old M. RMS is the root
    mean square of a tensor's entries. Vectors step by Adam, and matrices of a
    group with `"dense": True` by Adam with a factored second moment.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        rank: r, capped at the matrix's shorter side.
        projector: entries of the basis: "normal" or "rademacher" (of one size, with random signs).
        interval_steps: kappa, steps between redraws of the basis.
        momentum: decay of M, in [0, 1).
        clip: largest root mean square of U.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.
        seed: of the bases.

    Raises:
        ValueError: a rank or interval below 1.

    References:
        Hao, Cao & Mou 2024, Flora, arXiv 2402.03293, Algorithm 2.

    Example:
        >>> optimizer = Flora(model.parameters(), lr=1e-4, rank=4)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "L * r + m + n"
    DENSE = "k + m + n"

    def __init__(
        self,
        params: ParamsT,
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
        """Return factored Adam for vectors and dense groups, else Flora's descent."""
        if group["dense"] or param.ndim < 2:
            return WholeGradient(FactoredRule((group["momentum"], 0.999)))
        return FloraDescent(Subspace.of(group), group["momentum"], group["clip"])


@dataclass(frozen=True)
class FloraDescent:
    """Flora's mathematics; state: M (r, L), v_r (m), v_c (n)."""

    space: Subspace
    momentum: float
    clip: float

    def init_state(self, param: Tensor) -> State:
        rows, columns = param.flatten(1).shape
        return {
            "momentum": torch.zeros_like(self.space.low(param)),
            "row_sums": param.new_zeros(rows),
            "column_sums": param.new_zeros(columns),
        }

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Normalise each gradient, and project the momentum of the result back."""
        self.space.refresh(batch, SgdRule(self.momentum))  # the rule that carries M over
        basis = each(self.space.basis(batch), len(batch.params))  # (B, s, r)
        decay = 1 - batch.step**-0.8
        for index, grad in enumerate(batch.grads):
            state = batch.state_of(index)
            rows, columns = state["row_sums"], state["column_sums"]
            update = normalised(grad.flatten(1), rows, columns, decay, self.clip)
            view = self.space.view(update)
            momentum = state["momentum"].lerp_(basis[index].mT @ view, 1 - self.momentum)
            view.addmm_(basis[index], momentum, beta=0)
            yield update.view_as(grad)


def normalised(
    grad: Tensor,  # (m, n)
    rows: Tensor,  # (m,), updated in place
    columns: Tensor,  # (n,), updated in place
    decay: float,
    clip: float,
) -> Tensor:  # (m, n)
    """Return the gradient over the root of its factored second moment, clipped by root mean square.

    The 1e-30 is Adafactor's eps_1; it keeps the root of an all-zero gradient above 0.

    Args:
        grad: G.
        rows: running row sums v_r of the squared gradients.
        columns: running column sums v_c of the squared gradients.
        decay: of both sums, in [0, 1).
        clip: largest root mean square of the result, above 0.

    Returns:
        U, in new memory.

    References:
        Shazeer & Stern 2018, Adafactor, arXiv 1804.04235, Algorithm 4.
    """
    root = factored_root(grad.square() + 1e-30, rows, columns, decay)
    update = torch.div(grad, root, out=root)
    size = update.square().mean().sqrt()
    return update.div_((size / clip).clamp(min=1))
