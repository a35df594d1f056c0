"""Temporary memory of torch's AdamW by implementation, from the lines of torch/optim/adam.py."""

import pytest
import torch

from helpers.real_gpu import on_gpu
from rankwise.core.units import MIB

pytestmark = on_gpu

TENSORS, SIDE = 32, 512  # each of 1 MiB in fp32

# foreach: the square roots of all second moments are alive at once. One tensor at a time: a root, its
# quotient, and the quotient of the tensor before. Fused: nothing.
EXPECTED_MIB = {"foreach": (TENSORS, TENSORS + 1), "one by one": (2, 3), "fused": (0, 0.1)}
SETTINGS = {
    "foreach": {"foreach": True},
    "one by one": {"foreach": False},
    "fused": {"fused": True},
}


@pytest.mark.parametrize("how", SETTINGS)
def test_a_step_takes_the_temporary_memory_of_its_implementation(how: str) -> None:
    params = [torch.zeros(SIDE, SIDE, device="cuda", requires_grad=True) for _ in range(TENSORS)]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = torch.optim.AdamW(params, **SETTINGS[how])
    optimizer.step()  # makes the state
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    optimizer.step()
    taken = (torch.cuda.max_memory_allocated() - before) / MIB
    least, most = EXPECTED_MIB[how]
    assert least <= taken <= most
