"""Muon: momentum whose singular values are all pushed towards 1, for matrices; AdamW for the rest.

Source: Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks; the rate
"match_rms_adamw": Liu et al. 2025, Muon is Scalable for LLM Training, arXiv 2502.16982, eq. 4.
The steps of matrices are those of torch.optim.Muon, which holds two-dimensional parameters only.
Here one optimizer holds all parameters: vectors and groups with `dense` step by AdamW. A parameter
of more dimensions is seen as the first by the rest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.precision import wide
from rankwise.optim.parts.rules import AdamRule, Rule, WholeGradient
from rankwise.optim.parts.stacked import DescentOptimizer, settings

# The quintic of Jordan et al.: steep at 0; it keeps values that are near 1 between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7  # torch's guard against a momentum of zeros


class Muon(DescentOptimizer):
    """Orthogonalised momentum for hidden matrices, AdamW for all other parameters.

        M <- momentum * M + (1 - momentum) * G
        X = momentum * M + (1 - momentum) * G, or M without nesterov
        O = newton_schulz(X), about U V^T of the SVD X = U S V^T
        W <- (1 - lr * weight_decay) W - lr * f * O
        f = 0.2 sqrt(max(m, n)) with "match_rms_adamw", or sqrt(max(1, m / n)) with "original"

    The first f makes an update as large as AdamW's usually are, so one learning rate serves both.
    Vectors, and matrices of a group with `"dense": True`, step by AdamW; embeddings and the head
    belong there.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        momentum: decay of M, in [0, 1).
        nesterov: look one step of momentum ahead.
        newton_schulz_steps: iterations of the orthogonalisation.
        adjust: how the rate of a matrix follows from its shape.
        adamw_scale: learning rate of AdamW's parameters, as a multiple of `lr`; for "original",
            whose matrices want a larger rate.
        betas: decays of AdamW's two moments, in [0, 1).
        eps: added to the root of AdamW's second moment.
        weight_decay: decoupled, per unit of `lr`, for all parameters.
        release: step inside backward and free each gradient.

    References:
        Jordan et al. 2024, Muon, https://kellerjordan.github.io/posts/muon/.
        Liu et al. 2025, Muon is Scalable for LLM Training, arXiv 2502.16982, eq. 4.

    Example:
        >>> optimizer = Muon(model.parameters(), lr=1e-3)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "m * n"
    MATRICES_APART = True  # planning reads it: `dense` has a meaning

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        newton_schulz_steps: int = 5,
        adjust: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        adamw_scale: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        release: bool = False,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return AdamW for vectors and dense groups, else Muon's descent."""
        if group["dense"] or param.ndim < 2:
            return WholeGradient(
                Scaled(AdamRule(group["betas"], group["eps"]), group["adamw_scale"])
            )
        return MuonDescent(
            group["momentum"], group["nesterov"], group["newton_schulz_steps"], group["adjust"]
        )


@dataclass(frozen=True)
class Scaled:
    """A rule whose direction is multiplied: by a learning rate of its own, relative to the group's.

    Decay is the optimizer's, and follows the group's learning rate.
    """

    rule: Rule
    scale: float

    def init_state(self, param: Tensor) -> State:
        return self.rule.init_state(param)

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        """Return the rule's direction times the scale."""
        direction = self.rule.direction(grad, state, step)
        return direction if self.scale == 1 else direction * self.scale

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """Carry the rule's state over."""
        self.rule.transport(state, rotation, step)


@dataclass(frozen=True)
class MuonDescent:
    """Muon's mathematics; state: the momentum (m, n)."""

    momentum: float
    nesterov: bool
    newton_schulz_steps: int
    adjust: str

    def init_state(self, param: Tensor) -> State:
        return {"momentum": torch.zeros_like(param)}

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield the orthogonalised momentum, scaled by the matrix's shape."""
        for index, grad in enumerate(batch.grads):
            mean = batch.state["momentum"][index]
            mean.lerp_(grad, 1 - self.momentum)
            ahead = grad.lerp(mean, self.momentum) if self.nesterov else mean
            orthogonal = newton_schulz(ahead.flatten(1), self.newton_schulz_steps)
            factor = shape_factor(*orthogonal.shape, self.adjust)
            # Scaled in the weight's dtype, but not in bf16, which would round once more.
            yield orthogonal.to(wide(grad[:0]).dtype).mul_(factor).view_as(grad)


def newton_schulz(
    matrix: Tensor,  # (m, n)
    steps: int,
) -> Tensor:  # (m, n), in bf16
    """Push all singular values of a matrix towards 1, in bf16 as torch does.

        X <- a X + b (X X^T) X + c (X X^T)^2 X

    Args:
        matrix: X; it is first divided by its Frobenius norm, so that no value is above 1.
        steps: iterations.

    Returns:
        A matrix with X's singular vectors and values of about 0.7 to 1.2. A matrix of zeros stays.

    References:
        Jordan et al. 2024, Muon, https://kellerjordan.github.io/posts/muon/.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16)
    x = x.mT if is_tall else x  # the product X X^T is then the smaller of the two
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return (x.mT if is_tall else x).contiguous()


def shape_factor(rows: int, columns: int, adjust: str) -> float:
    """Return what the learning rate of a matrix (rows, columns) is multiplied by.

    Args:
        rows: m.
        columns: n.
        adjust: "original" (Jordan et al. 2024) or "match_rms_adamw" (Liu et al. 2025, eq. 4).
    """
    if adjust == "original":
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))
