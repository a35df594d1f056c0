"""Deterministic kernels, for a study with `deterministic: true`.

Random seeds alone do not fix a result: some kernels add in an order that differs between two calls,
above all on a GPU. Here torch uses only kernels that give the same bytes for the same input on the
same machine, and raises an error where it has none. cuBLAS needs a fixed workspace for that
(NVIDIA's cuBLAS documentation, "Results reproducibility"), 24 MiB more than its own on some GPUs.

Loaded by name, so that only requests of such studies depend on this file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rankwise.core.errors import Unsupported

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACES = (":4096:8", ":16:8")  # those with which cuBLAS is deterministic
NO_KERNEL = "does not have a deterministic implementation"  # in torch's error


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch use deterministic kernels only, until the context is left.

    It must be entered before this process uses CUDA, because cuBLAS reads its setting once.

    Raises:
        Unsupported: An operation has no deterministic kernel here. The message names it.
    """
    cudnn = torch.backends.cudnn
    mode = torch.get_deterministic_debug_mode()
    flags = cudnn.deterministic, cudnn.benchmark
    if os.environ.get(WORKSPACE) not in FIXED_WORKSPACES:
        os.environ[WORKSPACE] = FIXED_WORKSPACES[0]
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if NO_KERNEL not in str(error):
            raise
        operation = str(error).split(NO_KERNEL)[0].strip()
        raise Unsupported(
            f"deterministic: got true, but torch has no deterministic kernel of {operation} for "
            "this device, allowed: deterministic: false for this study"
        ) from error
    finally:
        torch.set_deterministic_debug_mode(mode)
        cudnn.deterministic, cudnn.benchmark = flags
