"""LDAdam: Adam in a subspace that follows the gradient at every step, with error feedback.

Source: Robert et al. 2024, arXiv 2410.16103.
Where we differ from the authors' code:

- The error is optimizer state (mn numbers) and counted as such. Theirs is left in the gradient,
  which then must not be zeroed.
- For weights in bf16 and fp16 second moments are fp32, theirs have the weight's dtype.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts import projectors
from rankwise.optim.parts.descent import Batch, Descent, LowRank, State
from rankwise.optim.parts.precision import wide
from rankwise.optim.parts.rules import AdamRule, WholeGradient
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace


class LDAdam(DescentOptimizer):
    """Adam in a subspace that takes one power iteration per step, with error feedback.

        A = G + E                                               (s, L)
        B = rho P_old M_hat + (1 - rho) A
        P = qr(B B^T P_old)                                     (s, r)
        M, v <- carried from P_old to P
        D = Adam(P^T A)                                         (r, L)
        E <- A - P P^T A + b1 / (1 - b1) (P_old M_old - P P^T P_old M_old)
        W <- (1 - lr * weight_decay) W - lr * P D

    G is seen as (s, L), s being the shorter side, and the rows of a square matrix. The first basis
    is the leading left singular vectors. E collects what the projections of the gradient and of the
    momentum lost. Vectors, and matrices of a group with `"dense": True`, step by Adam.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        rank: r, capped at the matrix's shorter side.
        rho: weight of the momentum in the search for the next basis, in [0, 1]; the gradient's is
            1 - rho.
        error_feedback: keep E; without it what a projection loses is lost.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.
        seed: without effect, because nothing is drawn.

    Raises:
        ValueError: a rank below 1.

    References:
        Robert et al. 2024, LDAdam, arXiv 2410.16103.

    Example:
        >>> optimizer = LDAdam(model.parameters(), lr=1e-4, rank=4)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "s * r + 2 * L * r + m * n"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        rank: int,
        rho: float = 0.908,
        error_feedback: bool = True,
        betas: tuple[float, float] = (0.908, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    @classmethod
    def formula(cls, *, error_feedback: bool, **options: object) -> str:
        """Return the formula of the numbers kept per matrix, with or without the error."""
        return cls.STATE if error_feedback else "s * r + 2 * L * r"

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return Adam for vectors and dense groups, else LDAdam's descent."""
        rule = AdamRule(group["betas"], group["eps"])
        if group["dense"] or param.ndim < 2:
            return WholeGradient(rule)
        rows, columns = param.flatten(1).shape
        # The authors' side, also of a square matrix; "short" means its columns.
        side = "left" if rows <= columns else "right"
        space = Subspace(group["rank"], side=side, seed=group["seed"])
        return LDAdamDescent(space, rule, group["rho"], group["error_feedback"])


@dataclass(frozen=True)
class LDAdamDescent:
    """LDAdam's mathematics; state: P (s, r), Adam's two moments (r, L), and the error (m, n)."""

    space: Subspace
    rule: AdamRule
    rho: float
    error_feedback: bool

    def init_state(self, param: Tensor) -> State:
        state = self.space.init_state(param)
        state.update(self.rule.init_state(self.space.low(param)))
        if self.error_feedback:
            state["error"] = torch.zeros_like(param)
        return state

    def directions(self, batch: Batch) -> Iterator[LowRank]:
        """Find the next basis, carry the moments into it, and yield Adam's step there."""
        for index, grad in enumerate(batch.grads):
            state = batch.state_of(index)
            whole = grad + state["error"] if self.error_feedback else grad.contiguous()
            yield self._direction(self.space.view(whole), state, batch.step)

    def _direction(
        self,
        total: Tensor,  # (s, L), the gradient plus the error
        state: State,
        step: int,
    ) -> LowRank:
        old_basis, old_momentum = state["basis"].clone(), state["exp_avg"].clone()
        state["basis"].copy_(self._next_basis(total, old_basis, old_momentum, step))
        basis = state["basis"]
        if step > 1:
            self.rule.transport(state, basis.mT @ old_basis, step - 1)
        carried = state["exp_avg"].clone()
        low = basis.mT @ total  # (r, L)
        direction = self.rule.direction(low, state, step)
        if self.error_feedback:
            b1 = self.rule.betas[0]
            error = lost_in_projection(total, low, basis, carried, old_basis, old_momentum, b1)
            self.space.view(state["error"]).copy_(error)
        return LowRank(basis, direction.to(basis.dtype), self.space.view)

    def _next_basis(
        self,
        total: Tensor,  # (s, L)
        old_basis: Tensor,  # (s, r)
        momentum: Tensor,  # (r, L)
        step: int,
    ) -> Tensor:  # (s, r)
        if step == 1:
            vectors, _ = projectors.svd([total], old_basis.shape[1])
            return vectors[0].to(total.dtype)
        mean = momentum / (1 - self.rule.betas[0] ** (step - 1))
        return power_iteration(total, old_basis, mean, self.rho)


def power_iteration(
    total: Tensor,  # (s, L)
    basis: Tensor,  # (s, r)
    mean: Tensor,  # (r, L), the bias-corrected momentum
    rho: float,
) -> Tensor:  # (s, r), orthonormal
    """Take one block power iteration on B = rho P M_hat + (1 - rho) A, from P: qr(B B^T P).

    Args:
        total: A, the gradient plus the error.
        basis: P, the basis of the last step.
        mean: M_hat, in the basis `basis`.
        rho: weight of the momentum, in [0, 1].

    Returns:
        The next basis, with the dtype of `total`.

    References:
        Robert et al. 2024, LDAdam, arXiv 2410.16103.
    """
    mixed = (basis @ mean).mul_(rho).add_(total, alpha=1 - rho)
    power = mixed @ (mixed.mT @ basis)
    return torch.linalg.qr(wide(power)).Q.to(total.dtype)


def lost_in_projection(
    total: Tensor,  # (s, L)
    low: Tensor,  # (r, L)
    basis: Tensor,  # (s, r)
    carried: Tensor,  # (r, L), the momentum in the new basis
    old_basis: Tensor,  # (s, r)
    old_momentum: Tensor,  # (r, L)
    b1: float,
) -> Tensor:  # (s, L)
    """Return A - P P^T A + b1 / (1 - b1) (P_old M_old - P M): what the two projections lost.

    Args:
        total: A, the gradient plus the last error.
        low: P^T A.
        basis: P, the new basis.
        carried: M = P^T P_old M_old, before this step's gradient enters it.
        old_basis: P_old.
        old_momentum: M_old.
        b1: decay of the first moment, in [0, 1).

    Returns:
        The next error E.

    References:
        Robert et al. 2024, LDAdam, arXiv 2410.16103.
    """
    lost_momentum = (old_basis @ old_momentum).addmm_(basis, carried, alpha=-1).mul_(b1 / (1 - b1))
    return lost_momentum.add_(total).addmm_(basis, low, alpha=-1)
