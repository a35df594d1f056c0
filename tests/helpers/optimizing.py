"""Gradients in float64, how near counts as equal, and an optimizer's steps in one line: shared by the tests of optimizers."""

import math

import torch
from torch import Tensor, nn

F64 = torch.float64
B1, B2 = 0.9, 0.999


def close(one: Tensor, other: Tensor, atol: float = 1e-12) -> bool:
    return torch.allclose(one, other, rtol=atol, atol=atol)


def gradients(count: int, *shape: int, seed: int = 7, dtype: torch.dtype = F64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]


def optimize(
    cls: type, weight: Tensor, grads: list[Tensor], lr: float = 0.1, **options
) -> tuple[nn.Parameter, dict]:
    param = nn.Parameter(weight.clone())
    optimizer = cls([param], lr, **options)
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param, optimizer.state[param]


def short(matrix: Tensor) -> Tensor:
    """As (s, L), and back."""
    return matrix if matrix.shape[0] < matrix.shape[1] else matrix.mT


def adam(
    m: Tensor, v: Tensor, grad: Tensor, t: int, eps: float, betas: tuple[float, float] = (B1, B2)
) -> Tensor:
    """In the convention of the authors' codes: eps before the correction."""
    m.copy_(betas[0] * m + (1 - betas[0]) * grad)
    v.copy_(betas[1] * v + (1 - betas[1]) * grad**2)
    return math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * m / (v.sqrt() + eps)
