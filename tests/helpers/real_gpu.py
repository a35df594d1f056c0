"""What the tests of a GPU share: on which device they run, and what autograd keeps there.

A rehearsal of `make gpu-check` sets RANKWISE_REHEARSE_GPU: tests that mean something on a CPU, too,
then run on it. Without it, and without a GPU, they are skipped.
"""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
# As the key `gpu` of a profile.
ARCHITECTURE = "hopper" if HAS_GPU and torch.cuda.get_device_capability()[0] == 9 else "ampere"
IS_REHEARSED = not HAS_GPU and bool(os.environ.get("RANKWISE_REHEARSE_GPU"))

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")]
on_gpu_or_rehearsed = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (HAS_GPU or IS_REHEARSED), reason="no GPU, and no rehearsal"),
]


def kept_bytes(run: Callable[[], Tensor]) -> int:
    """Bytes of the storages that autograd keeps for the backward pass of what `run` computes."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # kept, so that its address is not used again
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in storages.values())
