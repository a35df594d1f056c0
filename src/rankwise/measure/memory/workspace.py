"""Memory that cuBLAS holds for its products, by the architecture of a GPU.

torch gives each handle of cuBLAS a workspace from its own allocator, at the handle's first product,
and never takes it back. There is one handle a thread: the forward passes have one, and the backward
passes, which run in a thread of their own, another.

Source: parseChosenWorkspaceSize in torch's aten/src/ATen/cuda/CublasHandlePool.cpp: CUBLAS_WORKSPACE_CONFIG
is `:4096:2:16:8` by default (buffers of KiB, and how many of them), and 32 MiB on Hopper, as
recommended for cublasSetWorkspace in cuBLAS's documentation. Released builds of torch differ in which
size Blackwell gets; it is counted as `ampere` here.
"""

from rankwise.core.units import MIB

KIB = 2**10
CUBLAS_BYTES = {
    "ampere": 2 * 4096 * KIB + 8 * 16 * KIB,  # and every other architecture
    "hopper": 32 * MIB,
}
