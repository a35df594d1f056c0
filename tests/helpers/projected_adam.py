"""What tests of ProjectedAdam share: matrices with a known spectrum, its steps, and the words of its papers."""

import math

import torch
from torch import Tensor, nn

from helpers.optimizing import F64, gradients
from rankwise.optim import ProjectedAdam

SIDES = ["short", "long", "left", "right", "both"]
PLAIN = {"rule": "sgd", "scale": 1.0, "lr": 1.0}  # W <- W - P P^T G


def spectrum(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values."""
    left = torch.linalg.qr(gradients(1, rows, rows, seed=seed)[0]).Q
    right = torch.linalg.qr(gradients(1, columns, columns, seed=seed + 1)[0]).Q
    count = len(values)
    return left[:, :count] * torch.tensor(values, dtype=F64) @ right[:, :count].mT


def optimize(
    weight: Tensor, grads: list[Tensor], **options
) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """Step a copy of `weight` with each gradient; return the parameter and its optimizer."""
    param = nn.Parameter(weight.clone())
    optimizer = ProjectedAdam([param], **{"lr": 0.1, **options})
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param, optimizer


def moved(grad: Tensor, **options) -> Tensor:
    """By how much one step changes a weight of zeros."""
    param, _ = optimize(torch.zeros_like(grad), [grad], **options)
    return -param.detach()


def seen(matrix: Tensor, side: str, c: float = 1) -> Tensor:
    """G as (s, L), from the words of the papers: cut or join rows, then transpose if columns are projected."""
    m, n = matrix.shape
    if projects_columns(m, n, side):
        return matrix.reshape(round(m * c), round(n / c)).mT
    return matrix.reshape(round(m / c), round(n * c))


def unseen(matrix: Tensor, shape: torch.Size, side: str) -> Tensor:
    """The inverse of `seen`."""
    return (matrix.mT if projects_columns(*shape, side) else matrix).reshape(shape)


def projects_columns(m: int, n: int, side: str) -> bool:
    return {"right": True, "left": False, "short": m >= n, "long": m < n, "both": m < n}[side]


def dct_ii(size: int) -> Tensor:
    """The orthonormal DCT-II, entry by entry."""
    table = torch.empty(size, size, dtype=F64)
    for i in range(size):
        for k in range(size):
            scale = math.sqrt((1 if k == 0 else 2) / size)
            table[i, k] = scale * math.cos(math.pi * (2 * i + 1) * k / (2 * size))
    return table


def bases(state: dict, size: int) -> tuple[Tensor, Tensor | None]:
    """The basis that a state holds, and the second one of side "both"."""
    if "columns" in state:
        return dct_ii(size)[:, state["columns"].long()], None
    other = state["other_basis"].clone() if "other_basis" in state else None
    return state["basis"].clone(), other
