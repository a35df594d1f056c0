"""MLorc: AdamW whose two moments are kept as low-rank products between steps.

Source: Shen et al. 2025, MLorc: Momentum Low-rank Compression, arXiv 2506.01897, MLorc-AdamW.
Where we differ:

- A compressed moment is kept as two factors. The paper's third one, the diagonal of singular
  values, is multiplied into the first factor, so 2 r numbers less are kept.
- For weights in bf16 and fp16 the factors of the second moment are fp32.

The paper was read in descriptions of it; its oversampling is therefore an option, 0 by default.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts import projectors
from rankwise.optim.parts.descent import Batch, Descent, State
from rankwise.optim.parts.precision import wide, wide_zeros
from rankwise.optim.parts.rules import AdamRule, WholeGradient
from rankwise.optim.parts.stacked import DescentOptimizer, settings


class MLorc(DescentOptimizer):
    """AdamW on the whole gradient, with moments that a randomized SVD compresses at each step.

        M = b1 (A B) + (1 - b1) G
        V = b2 fix(C D) + (1 - b2) G^2
        W <- (1 - lr * weight_decay) W - lr * M_hat / (sqrt(V_hat) + eps)
        A B <- M,  C D <- V, by randomized SVDs of rank r

    A compressed second moment may have negative entries; `fix` replaces each by the mean magnitude
    of all of them. M_hat and V_hat are corrected for their start at zero. Unlike a projected
    gradient, an update has full rank. Vectors, and matrices of a group with `"dense": True`, step
    by AdamW.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        rank: r, capped at the matrix's shorter side.
        oversample: columns of the sketch beyond r.
        betas: decays of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.
        seed: of the sketches.

    References:
        Shen et al. 2025, MLorc, arXiv 2506.01897.
        Halko, Martinsson & Tropp 2011, Algorithms 4.1 and 5.1 (the randomized SVD).

    Example:
        >>> optimizer = MLorc(model.parameters(), lr=1e-3, rank=4)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "2 * r * (m + n)"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        rank: int,
        oversample: int = 0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return AdamW for vectors and dense groups, else MLorc's descent."""
        if group["dense"] or param.ndim < 2:
            return WholeGradient(AdamRule(group["betas"], group["eps"]))
        return MLorcDescent(
            group["rank"], group["oversample"], group["betas"], group["eps"], group["seed"]
        )


@dataclass(frozen=True)
class MLorcDescent:
    """MLorc's mathematics; state: A (m, r) and B (r, n) of M, C (m, r) and D (r, n) of V."""

    rank: int
    oversample: int
    betas: tuple[float, float]
    eps: float
    seed: int

    def init_state(self, param: Tensor) -> State:
        rows, columns = param.flatten(1).shape
        rank = min(self.rank, rows, columns)
        return {
            "exp_avg_left": param.new_zeros(rows, rank),
            "exp_avg_right": param.new_zeros(rank, columns),
            "exp_avg_sq_left": wide_zeros(param, rows, rank),
            "exp_avg_sq_right": wide_zeros(param, rank, columns),
        }

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Restore both moments of each matrix, take Adam's direction, and compress them again."""
        b1, b2 = self.betas
        sketches = self._sketches(batch)
        for index, grad in enumerate(batch.grads):
            state = batch.state_of(index)
            matrix = wide(grad.flatten(1))
            mean = wide(state["exp_avg_left"]) @ wide(state["exp_avg_right"])
            mean.lerp_(matrix, 1 - b1)
            square = without_negatives(state["exp_avg_sq_left"] @ state["exp_avg_sq_right"])
            square.mul_(b2).addcmul_(matrix, matrix, value=1 - b2)
            _keep(state, "exp_avg", mean, sketches[0])
            _keep(state, "exp_avg_sq", square, sketches[1])
            # All that follows happens in the memory of `square`.
            root = square.sqrt_().div_((1 - b2**batch.step) ** 0.5).add_(self.eps)
            yield torch.div(mean, root, out=root).div_(1 - b1**batch.step).view_as(grad)

    def _sketches(self, batch: Batch) -> tuple[Tensor, Tensor]:  # (n, l) each
        """Draw the sketches of both moments; all matrices of one shape share them.

        The generator is seeded by the optimizer's seed and the step: a resumed run draws the same.
        """
        like = batch.params[0]
        rows, columns = like.flatten(1).shape
        width = min(self.rank + self.oversample, rows, columns)
        generator = None
        if not like.is_meta:
            generator = torch.Generator(like.device).manual_seed(self.seed * 1_000_003 + batch.step)
        empty = wide(like[:0])
        one = projectors.draw("normal", columns, width, generator, empty)
        return one, projectors.draw("normal", columns, width, generator, empty)


def without_negatives(square: Tensor) -> Tensor:
    """Replace each negative entry of a restored second moment by the mean magnitude of all of them.

    Args:
        square: any shape.

    Returns:
        As `square`, in new memory.

    References:
        Shen et al. 2025, MLorc, arXiv 2506.01897 (its correction of the second moment).
    """
    is_negative = square < 0
    count = is_negative.sum().clamp(min=1)
    magnitude = square.clamp(max=0).sum().neg() / count
    return torch.where(is_negative, magnitude, square)


def compressed(
    matrix: Tensor,  # (m, n)
    sketch: Tensor,  # (n, l)
    rank: int,
) -> tuple[Tensor, Tensor]:  # (m, r), (r, n)
    """Return two factors of a matrix's randomized SVD of rank r; their product is close to it.

    Without oversampling (l = r) they are the range finder's Q and Q^T X, whose product is that of
    the SVD. With it the r largest of l singular values are kept.

    Args:
        matrix: X, in fp32 or fp64.
        sketch: normal random numbers.
        rank: r, at most l.

    References:
        Halko, Martinsson & Tropp 2011, Algorithms 4.1 and 5.1.
    """
    q = torch.linalg.qr(matrix @ sketch).Q  # (m, l)
    small = q.mT @ matrix  # (l, n)
    if q.shape[1] == rank:
        return q, small
    u, s, vh = torch.linalg.svd(small, full_matrices=False)
    return q @ (u[:, :rank] * s[:rank]), vh[:rank]


def _keep(state: State, name: str, moment: Tensor, sketch: Tensor) -> None:
    """Write the factors of a moment into the state."""
    left, right = compressed(moment, sketch, state[f"{name}_left"].shape[1])
    state[f"{name}_left"].copy_(left)
    state[f"{name}_right"].copy_(right)
