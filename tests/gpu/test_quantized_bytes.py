"""Bytes of a layer in 4 and 8 bits, by the formats' definitions (QLoRA, section 3; LLM.int8())."""

import pytest
import torch
from torch import nn

from helpers.real_gpu import DEVICE, HAS_GPU, on_gpu_or_rehearsed
from rankwise.models import storage

pytestmark = on_gpu_or_rehearsed

ROWS, COLUMNS = 1024, 2048
WEIGHTS = ROWS * COLUMNS
EXPECTED = {
    "nf4": WEIGHTS // 2 + 4 * WEIGHTS // 64 + 64,
    "nf4_double": WEIGHTS // 2 + WEIGHTS // 64 + 4 * WEIGHTS // (64 * 256) + 1092,
    "int8": WEIGHTS + 4 * ROWS,
}
BLOCK = 512  # CUDA's allocator rounds each of at most 6 tensors up to it


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_layer_has_the_bytes_of_its_format(kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    names = {"head": [], "new_head": []}
    stored(kind, names)  # what bitsandbytes allocates once
    before = torch.cuda.memory_allocated() if HAS_GPU else 0
    model = stored(kind, names)
    tensors = [*model.parameters(), *storage.constants(model)]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == EXPECTED[kind]
    if HAS_GPU:
        allocated = torch.cuda.memory_allocated() - before
        assert EXPECTED[kind] <= allocated <= EXPECTED[kind] + 6 * BLOCK


def stored(kind: str, names: dict) -> nn.Module:
    model = nn.Sequential(nn.Linear(COLUMNS, ROWS, bias=False, device=DEVICE))
    return storage.store(model, kind, names)
