"""The simulation of torch's caching allocator against that allocator, on random storages."""

import random

import pytest
import torch

from helpers.real_gpu import on_gpu
from rankwise.core.units import KIB, MIB
from rankwise.measure.memory.allocator import Allocator

pytestmark = on_gpu

EVENTS = 400
LARGEST = {"small": 900 * KIB, "large": 30 * MIB}
MOST_ALIVE = 20


@pytest.mark.parametrize("largest", LARGEST)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_allocates_and_reserves_what_the_real_one_does(largest: str, seed: int) -> None:
    """In a pool of its own, so that nothing of what came before is in the way."""
    chance, simulated = random.Random(seed), Allocator()
    alive: list[tuple] = []
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        for _ in range(EVENTS):
            if len(alive) == MOST_ALIVE or (alive and chance.random() < 0.4):
                block, tensor = alive.pop(chance.randrange(len(alive)))
                simulated.free(block)
                del tensor
            else:
                size = chance.randint(1, LARGEST[largest])
                tensor = torch.empty(size, dtype=torch.uint8, device="cuda")
                alive.append((simulated.allocate(size), tensor))
                del tensor
            assert torch.cuda.memory_allocated() - allocated == simulated.allocated
            assert torch.cuda.memory_reserved() - reserved == simulated.reserved
        alive.clear()
