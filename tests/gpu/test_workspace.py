"""What cuBLAS holds after the first product of each thread."""

import gc

import torch

from helpers.real_gpu import ARCHITECTURE, on_gpu
from rankwise.measure.memory.workspace import CUBLAS_BYTES

pytestmark = on_gpu

SIDE = 256


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def test_each_pass_holds_the_workspace_of_the_architecture() -> None:
    """Forward and backward run in two threads, each with a handle of its own."""
    left, right = (torch.randn(SIDE, SIDE, device="cuda", requires_grad=True) for _ in range(2))
    left.grad, right.grad = torch.zeros_like(left), torch.zeros_like(right)
    torch._C._cuda_clearCublasWorkspaces()
    before = allocated()
    product = left @ right
    assert allocated() - before == CUBLAS_BYTES[ARCHITECTURE] + 4 * SIDE**2
    product.sum().backward()
    del product
    assert allocated() - before == 2 * CUBLAS_BYTES[ARCHITECTURE]
