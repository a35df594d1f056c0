"""CUDA's caching allocator, simulated: rounding, segments, splitting, joining, giving up."""

import itertools

import pytest
import torch

from rankwise.core.units import MIB
from rankwise.measure.memory.allocator import Allocator, OutOfMemory


def test_small_large_and_own_segments() -> None:
    allocator = Allocator()
    sizes = [allocator.allocate(size).size for size in (1, 3 * MIB, 18 * MIB)]
    assert sizes == [512, 3 * MIB, 18 * MIB]
    assert allocator.reserved == (2 + 20 + 18) * MIB
    assert allocator.allocated == 512 + 21 * MIB


def test_a_rest_of_one_mebibyte_is_not_split_off() -> None:
    assert Allocator().allocate(11 * MIB).size == 12 * MIB
    assert Allocator().allocate(11 * MIB - 512).size == 11 * MIB - 512


def test_freed_neighbours_are_joined_and_used_again() -> None:
    allocator = Allocator()
    blocks = [allocator.allocate(4 * MIB) for _ in range(5)]  # one segment of 20 MiB
    assert allocator.reserved == 20 * MIB
    for block in (blocks[1], blocks[3], blocks[2]):
        allocator.free(block)
    again = allocator.allocate(9 * MIB)
    assert (again.start, allocator.reserved) == (blocks[1].start, 20 * MIB)


def test_streams_do_not_use_what_others_have_freed() -> None:
    allocator = Allocator()
    allocator.free(allocator.allocate(30 * MIB, stream=1))
    allocator.allocate(30 * MIB)
    assert allocator.reserved == 60 * MIB
    allocator.allocate(30 * MIB, stream=1)
    assert allocator.reserved == 60 * MIB


def test_whole_segments_are_released_before_it_gives_up() -> None:
    allocator = Allocator(capacity=40 * MIB)
    allocator.free(allocator.allocate(30 * MIB))
    assert allocator.allocate(38 * MIB).size == 38 * MIB
    with pytest.raises(OutOfMemory, match=f"of {40 * MIB} B are reserved"):
        allocator.allocate(4 * MIB)


def test_random_requests_never_overlap() -> None:
    draw = torch.Generator().manual_seed(0)
    allocator, live = Allocator(), []
    for _ in range(3000):
        if live and torch.rand((), generator=draw) < 0.5:
            allocator.free(live.pop(int(torch.randint(len(live), (), generator=draw))))
        else:
            live.append(allocator.allocate(int(2 ** (24 * torch.rand((), generator=draw)))))
        assert allocator.allocated == sum(block.size for block in live)
    spans = sorted((block.start, block.start + block.size) for block in live)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    for block in live:
        allocator.free(block)
    assert allocator.allocated == 0
    allocator.release_free_segments()
    assert allocator.reserved == 0  # everything was joined into whole segments again
