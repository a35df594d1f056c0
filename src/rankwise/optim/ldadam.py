"""LDAdam: Adam in a subspace that follows the gradient at every step, with error feedback (Robert et al. 2024, 2410.16103).

a = G + E; P from one block power iteration on B = rho P_old M_hat + (1 - rho) a, started at P_old: P = qr(B B' P_old);
Q = P'P_old; M <- Q M; v <- (1 - b2^t) |Q^2 (v_hat - M_hat^2) + (Q M_hat)^2| (squares by element); Adam on R = P'a;
E <- a - P R + b1 / (1 - b1) (P_old M_old - P Q M_old); W <- W - lr P D. The first basis is the leading left singular vectors.
Where we differ from the authors' code: the error is optimizer state, counted as such (m n numbers), and not left in the
gradient, so gradients are zeroed as ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rankwise.optim.parts import projectors
from rankwise.optim.parts.descent import Batch, Descent, LowRank, State
from rankwise.optim.parts.rules import Adam, Elementwise
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace


class LDAdam(DescentOptimizer):
    """LDAdam; vectors and `dense` groups by Adam. `rho` weighs the momentum in the search for the next subspace."""

    STATE = "s * r + 2 * L * r + m * n"

    def __init__(
        self,
        params,
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
        return cls.STATE if error_feedback else "s * r + 2 * L * r"

    def descent(self, group: dict, param: Tensor) -> Descent:
        rule = Adam(group["betas"], group["eps"])
        if group["dense"] or param.ndim < 2:
            return Elementwise(rule)
        return Following(
            Subspace(group["rank"], seed=group["seed"]), rule, group["rho"], group["error_feedback"]
        )


@dataclass(frozen=True)
class Following:
    """LDAdam's mathematics; state: P (s, r), Adam's two moments (r, L), and the error (m, n)."""

    space: Subspace
    rule: Adam
    rho: float
    error_feedback: bool

    def init_state(self, param: Tensor) -> State:
        error = {"error": torch.zeros_like(param)} if self.error_feedback else {}
        return {
            **self.space.init_state(param),
            **self.rule.init_state(self.space.low(param)),
            **error,
        }

    def directions(self, batch: Batch) -> Iterator[LowRank]:
        for index, grad in enumerate(batch.grads):
            state = {key: value[index] for key, value in batch.state.items()}
            whole = grad + state["error"] if self.error_feedback else grad.contiguous()
            yield self._one(self.space.view(whole), state, batch.step)

    def _one(self, a: Tensor, state: State, step: int) -> LowRank:  # a: (s, L)
        old, momentum = state["basis"].clone(), state["exp_avg"].clone()
        state["basis"].copy_(self._next(a, old, momentum, step))
        basis = state["basis"]
        if step > 1:
            self.rule.transport(state, basis.mT @ old, step - 1)
        carried = state["exp_avg"].clone()
        low = basis.mT @ a
        direction = self.rule.direction(low, state, step)
        if self.error_feedback:
            b1 = self.rule.betas[0]
            lost = (old @ momentum).addmm_(basis, carried, alpha=-1).mul_(b1 / (1 - b1))
            self.space.view(state["error"]).copy_(lost.add_(a).addmm_(basis, low, alpha=-1))
        return LowRank(basis, direction, self.space.view)

    def _next(self, a: Tensor, old: Tensor, momentum: Tensor, step: int) -> Tensor:  # (s, r)
        if step == 1:
            return projectors.svd([a], old.shape[1])[0][0].to(a.dtype)
        mean = momentum / (1 - self.rule.betas[0] ** (step - 1))
        mixed = (old @ mean).mul_(self.rho).add_(a, alpha=1 - self.rho)
        power = mixed @ (mixed.mT @ old)
        return torch.linalg.qr(projectors.wide(power)).Q.to(a.dtype)
