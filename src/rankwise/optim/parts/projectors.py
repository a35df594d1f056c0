"""Bases of a subspace for gradients. G is (m, n), B of them share a shape, r is the rank; a basis P is (m, r).

svd, rsvd and dct look at the gradients and are kept; normal, rademacher and orthonormal are drawn from a seed and redrawn
whenever they are needed. E[P P'] = I for normal and rademacher; P'P = I for the others.
"""

import math

import torch
from torch import Tensor

DRAWN = ("normal", "rademacher", "orthonormal")
CHUNK_NUMBERS = 2**24  # what one batched SVD may copy


def svd(
    grads: list[Tensor],  # B times (m, n)
    rank: int,
) -> tuple[Tensor, Tensor]:  # (B, m, r), (B, min(m, n))
    """Leading left singular vectors and all singular values, by full SVDs (GaLore: Zhao et al. 2024, Algorithm 1)."""
    size = max(1, CHUNK_NUMBERS // grads[0].numel())
    found = [_leading(grads[i : i + size], rank) for i in range(0, len(grads), size)]
    return torch.cat([vectors for vectors, _ in found]), torch.cat([values for _, values in found])


def _leading(grads: list[Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """Of one chunk; the other vectors, as large as the gradients, are let go before the next chunk."""
    u, s, _ = torch.linalg.svd(torch.stack([wide(g) for g in grads]), full_matrices=False)
    return u[..., :rank].contiguous(), s


def rsvd(
    grads: list[Tensor],  # B times (m, n)
    rank: int,
    oversample: int,
    power_iterations: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:  # (B, m, r), (B, l)
    """Leading left singular vectors by a randomized range finder (Halko, Martinsson & Tropp 2011, Algorithms 4.4 and 5.1).

    The sketch has l = min(r + oversample, m, n) columns, the same draw for every matrix. No gradient is copied.
    """
    width = min(rank + oversample, *grads[0].shape)
    sketch = draw("normal", grads[0].shape[1], width, generator, wide(grads[0][:0]))
    q = torch.linalg.qr(torch.stack([wide(g) @ sketch for g in grads])).Q
    for _ in range(power_iterations):
        q = torch.linalg.qr(
            torch.stack([wide(g).mT @ columns for g, columns in zip(grads, q, strict=True)])
        ).Q
        q = torch.linalg.qr(
            torch.stack([wide(g) @ columns for g, columns in zip(grads, q, strict=True)])
        ).Q
    small = torch.stack(
        [wide(g).mT @ columns for g, columns in zip(grads, q, strict=True)]
    )  # (B, n, l)
    u, s, _ = torch.linalg.svd(
        torch.linalg.qr(small).R.mT
    )  # small' = R' Q': the same left vectors and values
    return q @ u[..., :rank], s


def draw(
    kind: str, size: int, rank: int, generator: torch.Generator | None, like: Tensor
) -> Tensor:  # (size, r)
    """A random basis; the same for the same state of `generator`. On the meta device only its shape."""
    if like.is_meta:
        return like.new_empty(size, rank)
    if kind == "rademacher":
        signs = torch.randint(0, 2, (size, rank), generator=generator, device=like.device)
        return (signs * 2 - 1).to(like.dtype) / math.sqrt(rank)
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    normal = torch.randn(size, rank, generator=generator, device=like.device, dtype=dtype)
    if kind == "orthonormal":  # Haar measure: QR with the signs of R's diagonal (Mezzadri 2007)
        q, r = torch.linalg.qr(normal)
        return (q * r.diagonal().sign()).to(like.dtype)
    return (normal / math.sqrt(rank)).to(like.dtype)


def dct(
    grads: list[Tensor],  # B times (m, n)
    rank: int,
) -> Tensor:  # (B, r) whole numbers
    """The r rows of the orthonormal DCT-II whose coefficients of G are largest in l1 norm (2505.17967), ascending."""
    size = grads[0].shape[0]
    everything = dct_basis(torch.arange(size, device=grads[0].device), size, wide(grads[0][:0]))
    scores = torch.stack([(everything.mT @ wide(g)).abs().sum(1) for g in grads])
    return scores.topk(rank, dim=1).indices.sort(dim=1).values


def dct_basis(
    columns: Tensor,  # (..., r)
    size: int,
    like: Tensor,
) -> Tensor:  # (..., size, r)
    """Columns k of the orthonormal DCT-II: sqrt(2 / m) cos(pi (i + 1/2) k / m), and sqrt(1 / m) for k = 0."""
    place = torch.arange(size, device=columns.device, dtype=torch.float64) + 0.5
    waves = torch.cos(math.pi / size * place[:, None] * columns[..., None, :])
    scale = ((columns != 0).double().add_(1) / size).sqrt()
    return (waves * scale[..., None, :]).to(like.dtype)


def wide(grad: Tensor) -> Tensor:
    """At least float32: no decomposition is defined below it."""
    return grad if grad.dtype in (torch.float32, torch.float64) else grad.float()
