"""Inner rules: from a gradient to a direction, elementwise. Legend: m, v moments; b1, b2 their decays; t step.

A rule runs on a stack of projected gradients (B, r, L) or on one whole gradient. When the basis under it changes from P to
P_new, `transport` carries what it keeps over: R = P_new'P is (r, r) or (B, r, r).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Batch, State


class Rule(Protocol):
    """The mathematics inside or outside a subspace; settings only."""

    def init_state(self, param: Tensor) -> State:
        """What is kept for a tensor of this shape, all zero."""

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        """Return d for `param -= lr * d`. Updates `state`, never writes `grad`. `step` counts from 1."""

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """Carry the state, as it is after `step` steps, into a new basis."""


def adam_direction(
    grad: Tensor,  # any shape
    m: Tensor,  # as grad, updated in place
    v: Tensor,  # as grad, updated in place
    t: int,
    b1: float,
    b2: float,
    eps: float,
    convention: str = "torch",
) -> Tensor:
    """Adam's direction (Kingma & Ba 2015, Algorithm 1), in one of two conventions.

    torch: m_hat / (sqrt(v_hat) + eps). transformers, of its former AdamW and of GaLore's code: eps before the correction,
    sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    """
    m.lerp_(grad, 1 - b1)
    v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
    root, first, second = v.sqrt(), 1 - b1**t, (1 - b2**t) ** 0.5
    if convention == "torch":
        return torch.div(m, root.div_(second).add_(eps), out=root).div_(first)
    return torch.div(m, root.add_(eps), out=root).mul_(second / first)


@dataclass(frozen=True)
class Adam:
    """Two moments as large as the gradient: 2mn numbers."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    convention: str = "torch"

    def init_state(self, param: Tensor) -> State:
        return {"exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        return adam_direction(
            grad,
            state["exp_avg"],
            state["exp_avg_sq"],
            step,
            *self.betas,
            self.eps,
            self.convention,
        )

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """M <- R m; v <- (1 - b2^t) |R^2 (v_hat - m_hat^2) + (R m_hat)^2|, squares by element (LDAdam: 2410.16103, eq. 5)."""
        m, v, (b1, b2) = state["exp_avg"], state["exp_avg_sq"], self.betas
        first, second = 1 - b1**step, 1 - b2**step
        mean, square = m / first, v / second
        spread = rotation.square() @ (square - mean.square()) + (rotation @ mean).square()
        m.copy_(rotation @ m)
        v.copy_(spread.abs_().mul_(second))


@dataclass(frozen=True)
class Sgd:
    """Momentum as torch has it, m <- mu m + g; without momentum nothing is kept, and full rank is plain SGD."""

    momentum: float = 0.0

    def init_state(self, param: Tensor) -> State:
        return {"momentum": torch.zeros_like(param)} if self.momentum else {}

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        return state["momentum"].mul_(self.momentum).add_(grad) if self.momentum else grad

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        if self.momentum:
            state["momentum"].copy_(rotation @ state["momentum"])


def factored_root(
    square: Tensor,  # (..., m, n): squared gradients
    rows: Tensor,  # (..., m), updated in place
    columns: Tensor,  # (..., n), updated in place
    decay: float,
) -> Tensor:  # (..., m, n)
    """sqrt(v_r v_c' / sum(v_r)): the second moment from row and column sums (Adafactor: Shazeer & Stern 2018, Algorithm 4)."""
    rows.mul_(decay).add_(square.sum(-1), alpha=1 - decay)
    columns.mul_(decay).add_(square.sum(-2), alpha=1 - decay)
    mass = rows.sum(-1, keepdim=True).clamp(
        min=torch.finfo(rows.dtype).tiny
    )  # a gradient of zeros has no direction
    return (rows / mass).sqrt()[..., :, None] * columns.sqrt()[..., None, :]


@dataclass(frozen=True)
class Factored:
    """Adam whose second moment keeps row and column sums only: mn + m + n numbers; a vector keeps both moments whole."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def init_state(self, param: Tensor) -> State:
        if param.ndim < 2:
            return Adam().init_state(param)
        rows, columns = (
            param.new_zeros(param.shape[:-1]),
            param.new_zeros((*param.shape[:-2], param.shape[-1])),
        )
        return {"exp_avg": torch.zeros_like(param), "row_sums": rows, "column_sums": columns}

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        b1, b2 = self.betas
        if "row_sums" not in state:
            return adam_direction(
                grad, state["exp_avg"], state["exp_avg_sq"], step, b1, b2, self.eps
            )
        state["exp_avg"].lerp_(grad, 1 - b1)
        root = factored_root(grad.square(), state["row_sums"], state["column_sums"], b2)
        root.div_((1 - b2**step) ** 0.5).add_(self.eps)
        return torch.div(state["exp_avg"], root, out=root).div_(1 - b1**step)

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """M <- R m; row sums by R^2, which is their law where coordinates are uncorrelated; column sums stay."""
        state["exp_avg"].copy_(rotation @ state["exp_avg"])
        state["row_sums"].copy_((rotation.square() @ state["row_sums"][..., None])[..., 0])


@dataclass(frozen=True)
class Elementwise:
    """A rule as a descent: on the whole gradient. Vectors step as one stack, matrices one after another."""

    rule: Rule

    def init_state(self, param: Tensor) -> State:
        return self.rule.init_state(param)

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        if batch.grads[0].ndim < 2:
            yield from self.rule.direction(torch.stack(batch.grads), batch.state, batch.step)
            return
        for index, grad in enumerate(batch.grads):
            yield self.rule.direction(
                grad, {key: value[index] for key, value in batch.state.items()}, batch.step
            )


def limit_growth_(
    update: Tensor,  # scaled in place
    last: Tensor,  # (), its norm a step ago, 0 before the first; replaced by the norm now
    limit: float,
) -> None:
    """Hold ||update|| <= limit ||last||."""
    norm = torch.linalg.vector_norm(update)
    allowed = torch.where(last > 0, torch.minimum(norm, limit * last), norm)
    update.mul_(torch.where(norm > 0, allowed / norm, torch.ones_like(norm)))
    last.copy_(allowed)
