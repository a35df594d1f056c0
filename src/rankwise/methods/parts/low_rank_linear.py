"""A linear layer kept as factors, W ~ (A diag C) B, and how factors and moments are truncated.

Legend: m, n rows and columns of W; r rank, k rank after a truncation; G gradient of the loss with
respect to W.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

OVERSAMPLE, POWER_ITERATIONS = 8, 2  # of the randomized SVD
# A dtype that no parameter has while it trains; see LowRankLinear.replace.
PASSING_DTYPE = torch.float8_e5m2


class Factors(NamedTuple):
    """Factors of one matrix, or tensors of the same three shapes (gradients, moments)."""

    a: Tensor  # (m, r)
    c: Tensor  # (r)
    b: Tensor  # (r, n)

    def product(self) -> Tensor:  # (m, n)
        """(A diag C) B."""
        return (self.a * self.c) @ self.b


def factorise(
    weight: Tensor,  # (m, n)
    rank: int,
) -> Factors:
    """The leading singular triplets of `weight`; on the meta device only their shapes.

    Args:
        weight: W, in fp32 or fp64.
        rank: r, at most min(m, n).

    Returns:
        A and B with orthonormal columns and rows, and the singular values C in descending order.

    References:
        Halko, Martinsson & Tropp 2011, arXiv 0909.4061: randomized SVD, as in torch.svd_lowrank.
    """
    m, n = weight.shape
    if weight.is_meta:
        return Factors(weight.new_empty(m, rank), weight.new_empty(rank), weight.new_empty(rank, n))
    sketch = min(rank + OVERSAMPLE, m, n)
    u, s, v = torch.svd_lowrank(weight, sketch, POWER_ITERATIONS)
    return Factors(u[:, :rank].contiguous(), s[:rank].contiguous(), v[:, :rank].mT.contiguous())


def truncate(factors: Factors, k: int) -> Factors:
    """The best approximation of the product by one of rank k.

    Two QR factorisations and the SVD of an r x r core; the (m, n) product is never formed.

    Args:
        factors: of rank r.
        k: the new rank, at most r.

    Returns:
        A and B with orthonormal columns and rows, and the singular values C in descending order.

    References:
        Eckart & Young 1936: the leading singular triplets are the best approximation.
    """
    q_left, r_left = torch.linalg.qr(factors.a * factors.c)
    q_right, r_right = torch.linalg.qr(factors.b.mT)
    u, s, vt = torch.linalg.svd(r_left @ r_right.mT)
    return Factors(q_left @ u[:, :k], s[:k], vt[:k] @ q_right.mT)


def transport(
    mean: Factors, variance: Factors, old: Factors, new: Factors
) -> tuple[Factors, Factors]:
    """Mean and variance of the factors' gradients, as seen from `new`, a truncation of `old`.

    The gradients are G_A = G B' C and G_B = C A' G (' transposes). A_new and B_new are singular
    vectors of (A C) B, so the gradients of the new factors are exactly G_A (A' A_new) and (B_new
    B') G_B, and that of C_i is a_i . G_A,i / C_i. A variance goes through the squared entries of
    the same map, as if the gradient's entries were independent.

    Args:
        mean: of the old factors' gradients.
        variance: of the old factors' gradients.
        old: the factors of rank r.
        new: the factors of rank k, from `truncate(old, k)`.

    Returns:
        Mean and variance for the new factors.

    References:
        Robert et al. 2024 (LDAdam), arXiv 2410.16103: the rule for the variance.
    """
    to_a = old.a.mT @ new.a  # (r, k)
    to_b = new.b @ old.b.mT  # (k, r)
    smallest = torch.finfo(new.c.dtype).eps  # a singular value may be zero
    to_c = new.a / new.c.clamp_min(smallest)  # (m, k)
    mean_a, variance_a = mean.a @ to_a, variance.a @ to_a**2
    means = Factors(mean_a, (to_c * mean_a).sum(0), to_b @ mean.b)
    variances = Factors(variance_a, (to_c**2 * variance_a).sum(0), to_b**2 @ variance.b)
    return means, variances


class LowRankLinear(nn.Module):
    """Replaces a linear layer: trainable factors, the frozen bias, and perhaps the frozen residual.

    Args:
        linear: the layer to replace.
        rank: r.
        rebuilt: form the dense weight at every call, instead of multiplying by the factors.
        keep_residual: add the frozen W - (A diag C) B, so that the layer starts as it was.
    """

    def __init__(self, linear: nn.Linear, rank: int, *, rebuilt: bool, keep_residual: bool):
        super().__init__()
        self.rebuilt, self.stored = rebuilt, linear.weight.dtype
        weight = linear.weight.detach()
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))  # bf16 has no SVD
        factors = factorise(weight, rank)
        self.a, self.c, self.b = (nn.Parameter(factor) for factor in factors)
        self.bias = linear.bias
        residual = (weight - factors.product()).to(self.stored)
        self.residual = nn.Parameter(residual, requires_grad=False) if keep_residual else None

    @property
    def factors(self) -> Factors:
        """The three parameters."""
        return Factors(self.a, self.c, self.b)

    def detached_factors(self) -> Factors:
        """The values of the three parameters, without gradients."""
        return Factors(self.a.detach(), self.c.detach(), self.b.detach())

    def weight(self) -> Tensor:  # (m, n)
        """The dense matrix that the layer stands for."""
        product = self.factors.product()
        return product if self.residual is None else product + self.residual

    def forward(self, x: Tensor) -> Tensor:  # (..., n) -> (..., m)
        if self.rebuilt:
            return functional.linear(x, self.weight().to(x.dtype), self.bias)
        a, c, b = (factor.to(x.dtype) for factor in self.factors)
        y = functional.linear(functional.linear(x, b) * c, a, self.bias)
        return y if self.residual is None else y + functional.linear(x, self.residual)

    @torch.no_grad()
    def replace(self, factors: Factors) -> None:
        """Put new factors, of any rank, into the same parameters; old gradients are dropped."""
        for param, value in zip(self.factors, factors, strict=True):
            param.grad = None
            # While an old graph lives, autograd checks gradients against the parameter's old shape.
            # It forgets that shape when the parameter's dtype changes in between.
            param.data = param.new_empty(0, dtype=PASSING_DTYPE)
            param.data = value.detach().contiguous()

    @torch.no_grad()
    def zero_pad(self, factors: Factors) -> None:
        """Write factors of a lower rank k into the parameters, and zeros beside them."""
        k = len(factors.c)
        self.a[:, :k], self.c[:k], self.b[:k] = factors
        self.a[:, k:], self.c[k:], self.b[k:] = 0, 0, 0

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """An ordinary linear layer that gives the same outputs."""
        m, n = self.a.shape[0], self.b.shape[1]
        linear = nn.Linear(n, m, bias=False, device="meta")
        linear.weight = nn.Parameter(self.weight().to(self.stored), requires_grad=False)
        linear.bias = self.bias
        return linear
