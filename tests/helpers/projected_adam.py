"""ProjectedAdam's steps in one line, and what its equations are made of: spectra, sides, bases, Adam's direction."""

import math

import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, gradients
from rankwise.optim import ProjectedAdam

SIDES = ["short", "long", "left", "right", "both"]
PLAIN = {"rule": "sgd", "scale": 1.0, "lr": 1.0}  # W <- W - P P'G


def spectrum(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values."""
    u, v = (
        torch.linalg.qr(g)[0]
        for g in (
            *gradients(1, rows, rows, seed=seed),
            *gradients(1, columns, columns, seed=seed + 1),
        )
    )
    return u[:, : len(values)] * torch.tensor(values, dtype=F64) @ v[:, : len(values)].mT


def optimize(
    weight: Tensor, grads: list[Tensor | None], **options
) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    param = nn.Parameter(weight.clone())
    optimizer = ProjectedAdam([param], **{"lr": 0.1, **options})
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param, optimizer


def moved(grad: Tensor, **options) -> Tensor:
    """By how much one step changes a weight of zeros."""
    return -optimize(torch.zeros_like(grad), [grad], **options)[0].detach()


def seen(matrix: Tensor, side: str, c: float = 1) -> Tensor:
    """G as (s, L), from the words of the papers: cut or join rows, then transpose if columns are what is projected."""
    m, n = matrix.shape
    right = {"right": True, "left": False, "short": m >= n, "long": m < n, "both": m < n}[side]
    return (
        matrix.reshape(round(m * c), round(n / c)).mT
        if right
        else matrix.reshape(round(m / c), round(n * c))
    )


def unseen(matrix: Tensor, shape: torch.Size, side: str, c: float = 1) -> Tensor:
    m, n = shape
    right = {"right": True, "left": False, "short": m >= n, "long": m < n, "both": m < n}[side]
    return (matrix.mT if right else matrix).reshape(shape)


def dct_ii(size: int) -> Tensor:
    table = [
        [
            math.sqrt((1 if k == 0 else 2) / size)
            * math.cos(math.pi * (2 * i + 1) * k / (2 * size))
            for k in range(size)
        ]
        for i in range(size)
    ]
    return torch.tensor(table, dtype=F64)


def bases(state: dict, size: int) -> tuple[Tensor, Tensor | None]:
    if "columns" in state:
        return dct_ii(size)[:, state["columns"].long()], None
    return state["basis"].clone(), state.get(
        "other_basis", torch.empty(0)
    ).clone() if "other_basis" in state else None


def adam(
    m: Tensor, v: Tensor, grad: Tensor, t: int, eps: float, convention: str = "torch"
) -> Tensor:
    m.copy_(B1 * m + (1 - B1) * grad)
    v.copy_(B2 * v + (1 - B2) * grad**2)
    if convention == "torch":
        return (m / (1 - B1**t)) / ((v / (1 - B2**t)).sqrt() + eps)
    return math.sqrt(1 - B2**t) / (1 - B1**t) * m / (v.sqrt() + eps)
