"""Bases of a gradient's leading subspace. G is (m, n), r the rank; a basis Q is (m, r) with orthonormal columns."""

from collections.abc import Callable

import torch
from torch import Tensor


def svd_basis(
    grad: Tensor,  # (m, n)
    rank: int,
) -> Tensor:  # (m, r)
    """Leading left singular vectors by a full SVD (GaLore: Zhao et al. 2024, Algorithm 1)."""
    return torch.linalg.svd(grad.float(), full_matrices=False).U[:, :rank].to(grad.dtype)


def rsvd_basis(
    grad: Tensor,  # (m, n)
    rank: int,
    oversample: int,
    power_iterations: int,
    generator: torch.Generator | None = None,
) -> Tensor:  # (m, r)
    """Leading left singular vectors by a randomized range finder (Halko, Martinsson & Tropp 2011, Algorithms 4.4 and 5.1).

    The sketch has r + oversample columns, at most min(m, n). Computed in float32, returned in the dtype of `grad`.
    """
    g = grad.float()
    width = min(rank + oversample, *g.shape)
    sketch = torch.randn(g.shape[1], width, generator=generator, dtype=g.dtype, device=generator.device if generator else None)
    q = torch.linalg.qr(g @ sketch.to(g.device)).Q
    for _ in range(power_iterations):
        q = torch.linalg.qr(g @ torch.linalg.qr(g.mT @ q).Q).Q
    u = torch.linalg.svd(q.mT @ g, full_matrices=False).U
    return (q @ u[:, :rank]).to(grad.dtype)


def basis(kind: str, grad: Tensor, rank: int, oversample: int, power_iterations: int, seed: int) -> Tensor:
    """The basis of the projector called `kind` (svd or rsvd); random ones are drawn from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    projectors: dict[str, Callable[[], Tensor]] = {
        "svd": lambda: svd_basis(grad, rank),
        "rsvd": lambda: rsvd_basis(grad, rank, oversample, power_iterations, generator),
    }
    return projectors[kind]()
