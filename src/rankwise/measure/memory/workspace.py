"""Memory that cuBLAS holds for its products, by the architecture of a GPU.

torch gives each handle of cuBLAS a workspace from its own allocator, at the handle's first product,
and never takes it back. There is one handle a thread: the forward passes have one, and the backward
passes, which run in a thread of their own, another.

Source: parseChosenWorkspaceSize in torch's aten/src/ATen/cuda/CublasHandlePool.cpp. The default of
CUBLAS_WORKSPACE_CONFIG is `:4096:2:16:8` (buffers of KiB, and how many of them). On Hopper it is 32
MiB, as cuBLAS's documentation recommends for cublasSetWorkspace. Releases of torch differ in what
Blackwell gets, which is counted as `ampere` here.
"""

from rankwise.core.units import MIB

KIB = 2**10
CUBLAS_BYTES = {
    "ampere": 2 * 4096 * KIB + 8 * 16 * KIB,  # and every other architecture
    "hopper": 32 * MIB,
}
