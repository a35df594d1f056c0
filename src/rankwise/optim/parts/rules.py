"""Inner rules: Adam, SGD and factored Adam, from a gradient to a direction.

A rule runs on projected gradients (B, r, L) or on one whole gradient of any shape. When the basis
changes from P to P_new, `transport` carries the rule's state into the new basis with the rotation
P_new^T P, which is (r, r) or (B, r, r).

Sources: Adam (Kingma & Ba 2015, Algorithm 1); Adafactor's second moment (Shazeer & Stern 2018,
Algorithm 4); transport of both moments (LDAdam: Robert et al. 2024, arXiv 2410.16103, eq. 5).
Second moments and their sums are fp32 for weights in bf16 or fp16; precision.py says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Batch, State
from rankwise.optim.parts.precision import wide, wide_zeros


class Rule(Protocol):
    """The mathematics inside a subspace, or on a whole gradient. Holds settings only."""

    def init_state(self, param: Tensor) -> State:
        """Return the state of a tensor of this shape before its first step, all zero.

        Args:
            param: a parameter, or a tensor of its projected gradient's shape.
        """

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        """Return d for `param -= lr * d`, of the gradient's shape.

        Updates `state` in place and never writes to `grad`. For a gradient in bf16 or fp16 a
        direction divided by a second moment is fp32.

        Args:
            grad: projected gradients (B, r, L), or whole gradients of any shape.
            state: the rule's tensors by name, as `init_state` makes them for a tensor of the
                gradient's shape. Other tensors in it are left alone.
            step: number of this step, from 1; it sets the bias correction.

        Returns:
            The direction. It may share memory with `grad` or with the state.
        """

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """Carry the state into a new basis, in place.

        Args:
            state: as in `direction`, after `step` steps; of projected gradients.
            rotation: P_new^T P, (r, r) or (B, r, r).
            step: number of steps that the state has seen, at least 1.
        """


# Adam ---------------------------------------------------------------------------------------------


def adam_direction(
    grad: Tensor,  # any shape
    m: Tensor,  # as grad, updated in place
    v: Tensor,  # as grad in shape; fp32, fp64 or as grad in dtype; updated in place
    t: int,
    b1: float,
    b2: float,
    eps: float,
    convention: str = "torch",
) -> Tensor:  # as v
    """Return Adam's direction in one of two conventions.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        torch:         d = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
        transformers:  d = sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)

    The second is that of transformers' former AdamW, which GaLore's, Fira's and APOLLO's codes
    copy: eps is added before the bias correction.

    Args:
        grad: the gradient.
        m: first moment.
        v: second moment.
        t: step, from 1.
        b1: decay of `m`, in [0, 1).
        b2: decay of `v`, in [0, 1).
        eps: added to the root.
        convention: "torch" or "transformers".

    References:
        Kingma & Ba 2015, Adam, Algorithm 1.
    """
    m.lerp_(grad, 1 - b1)
    add_square_(v, grad, b2)
    # All that follows happens in the memory of `root`, so a step in fp32 allocates one tensor.
    root = v.sqrt()
    mean = wide(m)
    first_correction = 1 - b1**t
    second_correction = (1 - b2**t) ** 0.5
    if convention == "torch":
        root.div_(second_correction).add_(eps)
        return torch.div(mean, root, out=root).div_(first_correction)
    root.add_(eps)
    return torch.div(mean, root, out=root).mul_(second_correction / first_correction)


def add_square_(v: Tensor, grad: Tensor, decay: float) -> None:
    """Set v to decay * v + (1 - decay) * grad^2, squared in the dtype of v.

    Args:
        v: second moment, in fp32 or fp64, or in the gradient's dtype.
        grad: the gradient, of the same shape.
        decay: of `v`, in [0, 1).
    """
    if v.dtype != grad.dtype:
        # The conversion is explicit, because torch's own would not be in a prediction of memory.
        grad = wide(grad)
    v.mul_(decay).addcmul_(grad, grad, value=1 - decay)


def transport_moments_(
    m: Tensor,  # (..., r, L), updated in place
    v: Tensor,  # (..., r, L), updated in place
    rotation: Tensor,  # (..., r, r), as m in dtype
    t: int,
    b1: float,
    b2: float,
) -> None:
    """Carry Adam's moments into a new basis, with squares taken by element.

        m <- R m
        v <- (1 - b2^t) |R^2 (v_hat - m_hat^2) + (R m_hat)^2|

    m_hat and v_hat are bias-corrected. The mean rotates as a vector. The variance v_hat - m_hat^2
    goes through the squared rotation, as if coordinates were uncorrelated. The absolute value is
    needed because v_hat - m_hat^2 may be negative.

    Args:
        m: first moment.
        v: second moment.
        rotation: R = P_new^T P.
        t: number of steps that the moments have seen, at least 1.
        b1: decay of `m`, in [0, 1).
        b2: decay of `v`, in [0, 1).

    References:
        Robert et al. 2024, LDAdam, arXiv 2410.16103, eq. 5.
    """
    rotation, m_wide = rotation.to(v.dtype), m.to(v.dtype)
    second_correction = 1 - b2**t
    mean = m_wide / (1 - b1**t)
    square = v / second_correction
    moved = rotation.square() @ (square - mean.square()) + (rotation @ mean).square()
    m.copy_(rotation @ m_wide)
    v.copy_(moved.abs_().mul_(second_correction))


@dataclass(frozen=True)
class AdamRule:
    """Adam: two moments as large as the gradient.

    The second one is in fp32 or fp64; with `moments="weight"` it has the weight's dtype.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    convention: str = "torch"
    moments: str = "fp32"

    def init_state(self, param: Tensor) -> State:
        is_wide = self.moments == "fp32"
        square = wide_zeros(param, *param.shape) if is_wide else torch.zeros_like(param)
        return {"exp_avg": torch.zeros_like(param), "exp_avg_sq": square}

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        """Return `adam_direction` in the rule's convention."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        return adam_direction(grad, m, v, step, *self.betas, self.eps, self.convention)

    def correction(self, step: int) -> float:
        """Return the factor in a direction that corrects its bias, sqrt(1 - b2^t) / (1 - b1^t)."""
        b1, b2 = self.betas
        return (1 - b2**step) ** 0.5 / (1 - b1**step)

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """Carry both moments over, by `transport_moments_`."""
        transport_moments_(state["exp_avg"], state["exp_avg_sq"], rotation, step, *self.betas)


# SGD ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SgdRule:
    """SGD with torch's momentum, m <- mu m + g; without momentum there is no state."""

    momentum: float = 0.0

    def init_state(self, param: Tensor) -> State:
        return {"momentum": torch.zeros_like(param)} if self.momentum else {}

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        """Return the momentum; without momentum, the gradient itself."""
        return state["momentum"].mul_(self.momentum).add_(grad) if self.momentum else grad

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """Rotate the momentum."""
        if self.momentum:
            state["momentum"].copy_(rotation @ state["momentum"])


# Factored Adam ------------------------------------------------------------------------------------


def factored_root(
    square: Tensor,  # (..., m, n)
    rows: Tensor,  # (..., m), updated in place
    columns: Tensor,  # (..., n), updated in place
    decay: float,
) -> Tensor:  # (..., m, n)
    """Return the root of a second moment that is kept as row and column sums only.

        v_r <- decay v_r + (1 - decay) (G^2) 1
        v_c <- decay v_c + (1 - decay) 1^T (G^2)
        root = sqrt(v_r v_c^T / sum(v_r))

    Args:
        square: squared gradients, of the sums' dtype.
        rows: running row sums v_r.
        columns: running column sums v_c.
        decay: of both sums, in [0, 1).

    References:
        Shazeer & Stern 2018, Adafactor, Algorithm 4 (it keeps means, which gives the same
        quotient).
    """
    rows.mul_(decay).add_(square.sum(-1), alpha=1 - decay)
    columns.mul_(decay).add_(square.sum(-2), alpha=1 - decay)
    total = rows.sum(-1, keepdim=True)
    # Gradients that were all zero so far have a total of 0; the clamp makes their root 0, not NaN.
    total = total.clamp(min=torch.finfo(rows.dtype).tiny)
    return (rows / total).sqrt()[..., :, None] * columns.sqrt()[..., None, :]


@dataclass(frozen=True)
class FactoredRule:
    """Adam with a factored second moment: mn + m + n numbers. A vector keeps both moments whole."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def init_state(self, param: Tensor) -> State:
        if param.ndim < 2:
            return AdamRule().init_state(param)
        rows, columns = param.shape[:-1], (*param.shape[:-2], param.shape[-1])
        return {
            "exp_avg": torch.zeros_like(param),
            "row_sums": wide_zeros(param, *rows),
            "column_sums": wide_zeros(param, *columns),
        }

    def direction(self, grad: Tensor, state: State, step: int) -> Tensor:
        """Return Adam's direction; a matrix takes the root from its row and column sums."""
        b1, b2 = self.betas
        m = state["exp_avg"]
        if "row_sums" not in state:
            return adam_direction(grad, m, state["exp_avg_sq"], step, b1, b2, self.eps)
        m.lerp_(grad, 1 - b1)
        root = factored_root(wide(grad).square(), state["row_sums"], state["column_sums"], b2)
        root.div_((1 - b2**step) ** 0.5).add_(self.eps)
        return torch.div(wide(m), root, out=root).div_(1 - b1**step)

    def transport(self, state: State, rotation: Tensor, step: int) -> None:
        """Rotate m; rotate the row sums by the squared rotation; keep the column sums.

        The squared rotation is exact where coordinates are uncorrelated. Column sums run over the
        basis vectors, so an orthogonal rotation does not change them.
        """
        state["exp_avg"].copy_(rotation @ state["exp_avg"])
        row_sums = state["row_sums"][..., None]  # (..., r, 1)
        state["row_sums"].copy_((rotation.to(row_sums.dtype).square() @ row_sums)[..., 0])


# Whole gradients ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WholeGradient:
    """A rule as a descent: the rule runs on the whole gradient, without any projection."""

    rule: Rule

    def init_state(self, param: Tensor) -> State:
        return self.rule.init_state(param)

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield the rule's direction for each whole gradient; all vectors go through one call."""
        if batch.grads[0].ndim < 2:
            # Vectors are small and many: one call for all of them is faster.
            yield from self.rule.direction(torch.stack(batch.grads), batch.state, batch.step)
            return
        for index, grad in enumerate(batch.grads):
            yield self.rule.direction(grad, batch.state_of(index), batch.step)


def limit_growth_(
    update: Tensor,  # any shape, scaled in place
    last_norm: Tensor,  # (), replaced by the norm after limiting
    limit: float,
    correction: float,
) -> None:
    """Scale `update` so that its norm is at most `limit` times the last one.

    Both norms are those before bias correction, as in the authors' codes, where the correction is
    part of the step size. With a constant gradient the norm before correction grows by more than
    the usual limit of 1.01 in the first steps, so the limiter then acts.

    Args:
        update: the update, bias correction included.
        last_norm: norm of the previous update before its bias correction; 0 before the first
            update that is not zero, which is not limited.
        limit: largest allowed ratio of the two norms.
        correction: factor of the bias correction that `update` contains.

    References:
        Chen et al. 2024, Fira, arXiv 2410.01623 (its norm-growth limiter).
    """
    norm = torch.linalg.vector_norm(wide(update)) / correction
    allowed = torch.where(last_norm > 0, torch.minimum(norm, limit * last_norm), norm)
    update.mul_(torch.where(norm > 0, allowed / norm, torch.ones_like(norm)))
    last_norm.copy_(allowed)
