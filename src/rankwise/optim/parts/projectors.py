"""Bases of the subspace that gradients are projected onto.

G is a gradient (s, L), B of them share a shape, r is the rank; a basis P is (s, r).
svd, rsvd and dct are computed from the gradients and kept. normal, rademacher and orthonormal are
drawn from a seed, and drawn again whenever they are needed, so they take no memory between steps.
E[P P^T] = I for normal and rademacher; P^T P = I for the others.
"""

import math

import torch
from torch import Tensor

from rankwise.optim.parts.precision import wide  # torch decomposes no narrower dtypes

DRAWN = ("normal", "rademacher", "orthonormal")

# An SVD of a stack returns vectors as large as the stack: its numbers are limited, by chunks.
CHUNK_NUMBERS = 2**24


# Found in the gradients ---------------------------------------------------------------------------


def svd(
    grads: list[Tensor],  # B times (s, L)
    rank: int,
) -> tuple[Tensor, Tensor]:  # (B, s, r), (B, min(s, L))
    """Return the leading left singular vectors and all singular values, by full SVDs.

    Args:
        grads: gradients of one shape.
        rank: r, at most min(s, L).

    Returns:
        Vectors, and values in descending order; both in fp32, or in fp64 for gradients in fp64.

    References:
        Zhao et al. 2024, GaLore, arXiv 2403.03507, Algorithm 1.
    """
    size = max(1, CHUNK_NUMBERS // grads[0].numel())
    chunks = [_leading(grads[i : i + size], rank) for i in range(0, len(grads), size)]
    vectors = torch.cat([chunk[0] for chunk in chunks])
    values = torch.cat([chunk[1] for chunk in chunks])
    return vectors, values


def _leading(grads: list[Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """Decompose one chunk; the copy frees the other vectors before the next chunk starts."""
    u, s, _ = torch.linalg.svd(torch.stack([wide(grad) for grad in grads]), full_matrices=False)
    return u[..., :rank].contiguous(), s


def rsvd(
    grads: list[Tensor],  # B times (s, L)
    rank: int,
    oversample: int,
    power_iterations: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:  # (B, s, r), (B, l)
    """Return the leading left singular vectors and l singular values, by a randomized range finder.

    One sketch of l = min(r + oversample, s, L) columns serves every matrix. Matrices are multiplied
    one by one, so that no stack of gradients is formed.

    Args:
        grads: gradients of one shape.
        rank: r.
        oversample: columns of the sketch beyond r; 4 to 10 are enough.
        power_iterations: multiplications with G G^T, which sharpen a slowly falling spectrum; 1 or
            2.
        generator: source of the sketch; None for torch's global generator.

    Returns:
        Vectors, and values in descending order; both in fp32, or in fp64 for gradients in fp64.

    References:
        Halko, Martinsson & Tropp 2011, Algorithms 4.4 and 5.1.
    """
    width = min(rank + oversample, *grads[0].shape)
    sketch = draw("normal", grads[0].shape[1], width, generator, wide(grads[0][:0]))
    q = torch.linalg.qr(torch.stack([wide(grad) @ sketch for grad in grads])).Q  # (B, s, l)
    for _ in range(power_iterations):
        q = torch.linalg.qr(_products(grads, q, transposed=True)).Q  # (B, L, l)
        q = torch.linalg.qr(_products(grads, q, transposed=False)).Q  # (B, s, l)
    small = _products(grads, q, transposed=True)  # (B, L, l)
    # small^T = R^T Q^T has the left vectors and values of the l x l matrix R^T, whose SVD is cheap.
    u, s, _ = torch.linalg.svd(torch.linalg.qr(small).R.mT)
    return q @ u[..., :rank], s


def _products(
    grads: list[Tensor],  # B times (s, L)
    columns: Tensor,  # (B, L, l), or (B, s, l) if transposed
    *,
    transposed: bool,
) -> Tensor:  # (B, s, l), or (B, L, l) if transposed
    """Multiply each gradient, or its transpose, with its own columns."""
    products = []
    for grad, own in zip(grads, columns, strict=True):
        # No name for the wide copy of a bf16 gradient: it would live on while the products are
        # stacked.
        products.append((wide(grad).mT if transposed else wide(grad)) @ own)
    return torch.stack(products)


def dct(
    grads: list[Tensor],  # B times (s, L)
    rank: int,
) -> Tensor:  # (B, r) integers, ascending
    """Return the r columns of the DCT-II basis whose coefficients of G are largest in l1 norm.

    Args:
        grads: gradients of one shape.
        rank: r, at most s.

    References:
        DCT subspaces: arXiv 2505.17967.
    """
    size = grads[0].shape[0]
    basis = dct_basis(torch.arange(size, device=grads[0].device), size, wide(grads[0][:0]))
    scores = torch.stack([(basis.mT @ wide(grad)).abs().sum(1) for grad in grads])
    return scores.topk(rank, dim=1).indices.sort(dim=1).values


def dct_basis(
    columns: Tensor,  # (..., r) integers
    size: int,
    like: Tensor,
) -> Tensor:  # (..., s, r), of the dtype of `like`
    """Return chosen columns k of the orthonormal DCT-II.

    sqrt(2 / s) cos(pi (i + 1/2) k / s) at row i, and sqrt(1 / s) for k = 0.

    Args:
        columns: k, from 0 to s - 1.
        size: s.
        like: a tensor of the wanted dtype.

    References:
        DCT subspaces: arXiv 2505.17967.
    """
    centre = torch.arange(size, device=columns.device, dtype=torch.float64) + 0.5
    waves = torch.cos(math.pi / size * centre[:, None] * columns[..., None, :])
    scale = ((columns != 0).double().add_(1) / size).sqrt()
    return (waves * scale[..., None, :]).to(like.dtype)


# Drawn from a seed --------------------------------------------------------------------------------


def draw(
    kind: str, size: int, rank: int, generator: torch.Generator | None, like: Tensor
) -> Tensor:  # (s, r)
    """Draw a random basis; the same state of `generator` gives the same basis.

    Args:
        kind: "normal", N(0, 1/r); "rademacher", +-1/sqrt(r); "orthonormal", uniform (Haar)
            orthonormal.
        size: s.
        rank: r.
        generator: source of the numbers; None for torch's global generator.
        like: a tensor of the wanted device and dtype. On the meta device only the shape is
            returned.

    References:
        Mezzadri 2007, How to generate random matrices from the classical compact groups
        ("orthonormal").
    """
    if like.is_meta:
        return like.new_empty(size, rank)
    if kind == "rademacher":
        bits = torch.randint(0, 2, (size, rank), generator=generator, device=like.device)
        return (bits * 2 - 1).to(like.dtype) / math.sqrt(rank)
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    normal = torch.randn(size, rank, generator=generator, device=like.device, dtype=dtype)
    if kind == "orthonormal":
        # Without the signs of R's diagonal Q would not be Haar distributed (Mezzadri 2007).
        q, r = torch.linalg.qr(normal)
        return (q * r.diagonal().sign()).to(like.dtype)
    return (normal / math.sqrt(rank)).to(like.dtype)


# Weights of the basis vectors ---------------------------------------------------------------------


def energy_weights(
    values: Tensor,  # (B, r) singular values, descending
    grads: list[Tensor],  # B times (s, L)
    share: float,
) -> Tensor:  # (B, r) of 0 and 1
    """Keep the fewest singular vectors whose squared values sum to `share` of ||G||_F^2.

    Args:
        values: the leading singular values of `grads`.
        grads: the gradients; a gradient of zeros keeps all vectors.
        share: of the squared norm, in (0, 1].

    Returns:
        1 for a vector that is kept, 0 for one that is removed.

    References:
        AdaRankGrad: Refael et al. 2024, arXiv 2410.17881.
    """
    norms = [torch.linalg.vector_norm(grad, dtype=values.dtype) for grad in grads]
    total = torch.stack([norm**2 for norm in norms])[:, None]
    captured_before = values.square().cumsum(1) - values.square()
    # A gradient of zeros keeps all vectors, or none could ever be used.
    kept = (captured_before < share * total) | (total == 0)
    return kept.to(values.dtype)


def threshold_weights(
    values: Tensor,  # (B, r) singular values, descending
    threshold: float,
) -> Tensor:  # (B, r) in [0, 1]
    """Weigh singular vectors so that P P^T G is singular value thresholding of G.

    With weights sqrt(max(1 - tau / sigma, 0)) and tau = threshold * sigma_1,
    P P^T G = U max(S - tau, 0) V^T for the gradient in which the basis was found.

    Args:
        values: the leading singular values of the gradients.
        threshold: tau as a share of the largest singular value, in [0, 1].

    References:
        Cai, Candes & Shen 2010.
    """
    smallest = torch.finfo(values.dtype).tiny  # a singular value of 0 must not divide
    shrinkage = threshold * values[:, :1] / values.clamp(min=smallest)
    return (1 - shrinkage).clamp(min=0).sqrt()
