"""Inner rules: from a gradient to a direction, elementwise. Legend: m, v moments; b1, b2 their decays; t step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankwise.optim.descent import State


def adam_direction(
    grad: Tensor,  # any shape
    m: Tensor,  # as grad, updated in place
    v: Tensor,  # as grad, updated in place
    t: int,
    b1: float,
    b2: float,
    eps: float,
) -> Tensor:
    """m_hat / (sqrt(v_hat) + eps): Adam as torch has it (Kingma & Ba 2015, Algorithm 1; eps outside the bias correction)."""
    m.lerp_(grad, 1 - b1)
    v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
    return m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt_() + eps)


@dataclass(frozen=True)
class Adam:
    """Adam as a descent: two moments as large as the parameter, 2mn numbers."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def init_state(self, param: Tensor) -> State:
        return {"exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        return adam_direction(grad, state["exp_avg"], state["exp_avg_sq"], step, *self.betas, self.eps)
