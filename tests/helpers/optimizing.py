"""What tests of optimizers share: random gradients, a closeness check, a training loop, Adam's equations."""

import math

import torch
from torch import Tensor, nn

F64 = torch.float64
B1, B2 = 0.9, 0.999  # Adam's default betas


def close(one: Tensor, other: Tensor, atol: float = 1e-12) -> bool:
    """Whether two tensors are equal up to `atol`, relative and absolute."""
    return torch.allclose(one, other, rtol=atol, atol=atol)


def gradients(count: int, *shape: int, seed: int = 7, dtype: torch.dtype = F64) -> list[Tensor]:
    """Normal random tensors of one shape."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]


def optimize(
    cls: type, weight: Tensor, grads: list[Tensor], lr: float = 0.1, **options
) -> tuple[nn.Parameter, dict]:
    """Step a copy of `weight` with each gradient; return the parameter and its state."""
    param = nn.Parameter(weight.clone())
    optimizer = cls([param], lr, **options)
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param, optimizer.state[param]


def short(matrix: Tensor) -> Tensor:
    """A matrix seen with its shorter side first; the same call turns it back."""
    return matrix if matrix.shape[0] < matrix.shape[1] else matrix.mT


def adam(
    m: Tensor,  # updated in place
    v: Tensor,  # updated in place
    grad: Tensor,
    t: int,
    eps: float,
    convention: str,
) -> Tensor:
    """Adam's direction; transformers' convention adds eps before the bias correction."""
    m.copy_(B1 * m + (1 - B1) * grad)
    v.copy_(B2 * v + (1 - B2) * grad**2)
    if convention == "torch":
        return (m / (1 - B1**t)) / ((v / (1 - B2**t)).sqrt() + eps)
    return math.sqrt(1 - B2**t) / (1 - B1**t) * m / (v.sqrt() + eps)


def numbers(state: dict) -> int:
    """How many numbers a parameter's state holds."""
    return sum(value.numel() for value in state.values() if torch.is_tensor(value))
