"""A linear layer kept as W ~ (A diag C) B, its best truncation, and Adam's moments carried over to new factors.

Legend: m, n rows and columns of W; r rank, k rank after a truncation; G gradient of the loss with respect to W.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

OVERSAMPLE, POWER_ITERATIONS = 8, 2
NEVER_TRAINED = torch.float8_e5m2


class Factors(NamedTuple):
    """Factors of one matrix, or anything that has their shapes."""

    a: Tensor  # (m, r)
    c: Tensor  # (r)
    b: Tensor  # (r, n)

    def product(self) -> Tensor:
        """(A diag C) B."""
        return (self.a * self.c) @ self.b


def factorise(weight: Tensor, rank: int) -> Factors:
    """The leading singular triplets of `weight` (m, n) by a randomized SVD; only their shapes on the meta device."""
    m, n = weight.shape
    if weight.is_meta:
        return Factors(weight.new_empty(m, rank), weight.new_empty(rank), weight.new_empty(rank, n))
    u, s, v = torch.svd_lowrank(weight, min(rank + OVERSAMPLE, m, n), POWER_ITERATIONS)
    return Factors(u[:, :rank].contiguous(), s[:rank].contiguous(), v[:, :rank].mT.contiguous())


def truncate(factors: Factors, k: int) -> Factors:
    """The best rank-k approximation of the product (Eckart & Young 1936), from r x r matrices: never forms (m, n)."""
    q_left, r_left = torch.linalg.qr(factors.a * factors.c)
    q_right, r_right = torch.linalg.qr(factors.b.mT)
    u, s, vt = torch.linalg.svd(r_left @ r_right.mT)
    return Factors(q_left @ u[:, :k], s[:k], vt[:k] @ q_right.mT)


def transport(
    mean: Factors, variance: Factors, old: Factors, new: Factors
) -> tuple[Factors, Factors]:
    """Mean and variance of the factors' gradients, seen from `new`, a truncation of `old`.

    The gradients are G_A = G B' C and G_B = C A' G (' transposes). As A_new and B_new are singular vectors of (A C) B,
    those of the new factors are G_A (A' A_new) and (B_new B') G_B exactly, and that of C_i is a_i . G_A,i / C_i. A variance
    takes the squared entries of the same map, its entries taken as independent (LDAdam's rule).
    """
    to_a, to_b = old.a.mT @ new.a, new.b @ old.b.mT  # (r, k), (k, r)
    to_c = new.a / new.c.clamp_min(torch.finfo(new.c.dtype).eps)
    mean_a, variance_a = mean.a @ to_a, variance.a @ to_a**2
    means = Factors(mean_a, (to_c * mean_a).sum(0), to_b @ mean.b)
    return means, Factors(variance_a, (to_c**2 * variance_a).sum(0), to_b**2 @ variance.b)


class LowRankLinear(nn.Module):
    """In place of a linear layer: trainable factors, frozen bias, and the frozen rest of the weight if it is kept."""

    def __init__(self, linear: nn.Linear, rank: int, *, rebuilt: bool, keep_residual: bool):
        super().__init__()
        weight = linear.weight.detach().to(
            torch.promote_types(linear.weight.dtype, torch.float32)
        )  # bf16 has no SVD
        factors = factorise(weight, rank)
        self.rebuilt, self.stored = rebuilt, linear.weight.dtype
        self.a, self.c, self.b = (nn.Parameter(factor) for factor in factors)
        self.bias = linear.bias
        residual = (weight - factors.product()).to(self.stored)
        self.residual = nn.Parameter(residual, requires_grad=False) if keep_residual else None

    @property
    def factors(self) -> Factors:
        """The three parameters."""
        return Factors(self.a, self.c, self.b)

    def weight(self) -> Tensor:
        """The dense (m, n) matrix that the layer stands for."""
        product = self.factors.product()
        return product if self.residual is None else product + self.residual

    def forward(self, x: Tensor) -> Tensor:
        if self.rebuilt:
            return functional.linear(x, self.weight().to(x.dtype), self.bias)
        a, c, b = (factor.to(x.dtype) for factor in self.factors)
        y = functional.linear(functional.linear(x, b) * c, a, self.bias)
        return y if self.residual is None else y + functional.linear(x, self.residual)

    @torch.no_grad()
    def replace(self, factors: Factors) -> None:
        """Take new factors, of any rank, in the same parameters; gradients of the old ones are dropped."""
        for param, value in zip(self.factors, factors, strict=True):
            param.grad = None
            # Autograd remembers a parameter's shape while an old graph lives, and forgets it when the dtype changes.
            param.data = param.new_empty(0, dtype=NEVER_TRAINED)
            param.data = value.detach().contiguous()

    @torch.no_grad()
    def zero_pad(self, factors: Factors) -> None:
        """Write `factors` of a lower rank into the parameters as they are, and zeros beside them."""
        k = len(factors.c)
        self.a[:, :k], self.c[:k], self.b[:k] = factors
        self.a[:, k:], self.c[k:], self.b[k:] = 0, 0, 0

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The ordinary layer that answers alike."""
        m, n = self.a.shape[0], self.b.shape[1]
        linear = nn.Linear(n, m, bias=False, device="meta")
        linear.weight, linear.bias = (
            nn.Parameter(self.weight().to(self.stored), requires_grad=False),
            self.bias,
        )
        return linear
