"""A simulation of torch's CUDA caching allocator: what a log of storages reserves, and if it fits.

Source: c10/cuda/CUDACachingAllocator.cpp with default settings: no expandable segments, no limit on
splitting. The constants below carry its names. Its rules:

- A size is rounded up to a multiple of 512 B.
- Memory comes from the driver in segments: 2 MiB for blocks up to 1 MiB, 20 MiB for blocks below
  10 MiB, a segment of its own in steps of 2 MiB for anything larger.
- A segment belongs to the stream that asked for it, and so do its blocks.
- A request takes the smallest free block that is large enough (best fit). The rest of the block is
  split off if it is at least 512 B (small blocks) or more than 1 MiB (large blocks).
- A block that is freed is joined with free neighbours of its segment.
- Before it gives up, the allocator returns to the driver the segments that are wholly free.

Not simulated: memory that kernels of cuSOLVER and cuDNN ask for, because no log contains it.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from rankwise.core.units import MIB

MIN_BLOCK_SIZE = 512  # kMinBlockSize
SMALL_SIZE = MIB  # kSmallSize: blocks up to this size are small
SMALL_BUFFER = 2 * MIB  # kSmallBuffer: a segment for small blocks
LARGE_BUFFER = 20 * MIB  # kLargeBuffer: a segment for blocks below MIN_LARGE_ALLOC
MIN_LARGE_ALLOC = 10 * MIB  # kMinLargeAlloc: from here a block gets its own segment
ROUND_LARGE = 2 * MIB  # kRoundLarge: sizes of such segments are multiples of it


class OutOfMemory(MemoryError):
    """The log does not fit into the capacity."""


def block_size(size: int) -> int:
    """Bytes of the block that a storage of `size` bytes asks for (round_size in torch)."""
    return _round_up(size, MIN_BLOCK_SIZE)


def segment_size(size: int) -> int:
    """Bytes of the segment that is opened for a block (get_allocation_size in torch)."""
    if size <= SMALL_SIZE:
        return SMALL_BUFFER
    if size < MIN_LARGE_ALLOC:
        return LARGE_BUFFER
    return _round_up(size, ROUND_LARGE)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


class Pool(NamedTuple):
    """Where a free block is looked for.

    Attributes:
        stream: The number of a stream of the GPU.
        is_small: Whether the segments are those for small blocks.
    """

    stream: int
    is_small: bool


@dataclass(eq=False)
class Block:
    """A stretch of a segment, linked to its neighbours there.

    Attributes:
        start: Address; the simulation only orders blocks by it.
        size: Bytes.
        pool: That of its segment.
        before: The neighbour at lower addresses.
        after: The neighbour at higher addresses.
        is_free: Whether it can be allocated.
    """

    start: int
    size: int
    pool: Pool
    before: "Block | None" = None
    after: "Block | None" = None
    is_free: bool = False

    @property
    def is_whole_segment(self) -> bool:
        """Whether the block has no neighbour."""
        return self.before is None and self.after is None


FreeEntry = tuple[int, int, Block]  # size, start, block: no two blocks start at one address


@dataclass
class Allocator:
    """Blocks and segments under a capacity.

    Attributes:
        capacity: Bytes that may be reserved.
        reserved: Bytes of all segments now.
        allocated: Bytes of all blocks in use now.
        peak_reserved: The most bytes reserved so far.
        peak_allocated: The most bytes allocated so far.
    """

    capacity: float = float("inf")
    reserved: int = 0
    allocated: int = 0
    peak_reserved: int = 0
    peak_allocated: int = 0
    # Free blocks sorted by size, then address.
    _pools: dict[Pool, list[FreeEntry]] = field(default_factory=lambda: defaultdict(list))
    _next_start: int = 0  # address of the next segment

    def allocate(self, size: int, stream: int = 0) -> Block | None:
        """Find or make a block for a storage of `size` bytes; None for an empty storage.

        Args:
            size: Bytes of the storage.
            stream: The stream that is current.

        Raises:
            OutOfMemory: No free block is large enough, and no new segment fits into the capacity.
        """
        size = block_size(size)
        if size == 0:
            return None
        pool = Pool(stream, is_small=size <= SMALL_SIZE)
        block = self._best_fit(size, pool) or self._open_segment(size, pool)
        self._split(block, size)
        # Counts the whole block: a rest that is too small to split off is allocated as well.
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block | None) -> None:
        """Free a block and join it with free neighbours; nothing for None, an empty storage."""
        if block is None:
            return
        self.allocated -= block.size
        if block.before and block.before.is_free:
            block = _join(self._take_from_pool(block.before), block)
        if block.after and block.after.is_free:
            block = _join(block, self._take_from_pool(block.after))
        self._put_into_pool(block)

    def release_free_segments(self) -> None:
        """Return wholly free segments to the driver (release_cached_blocks in torch)."""
        for pool in self._pools.values():
            kept = []
            for entry in pool:
                block = entry[2]
                if block.is_whole_segment:
                    self.reserved -= block.size
                else:
                    kept.append(entry)
            pool[:] = kept

    def _best_fit(self, size: int, pool: Pool) -> Block | None:
        entries = self._pools[pool]
        position = bisect_left(entries, (size,))
        if position == len(entries):
            return None
        return self._take_from_pool(entries[position][2])

    def _open_segment(self, size: int, pool: Pool) -> Block:
        wanted = segment_size(size)
        if self.reserved + wanted > self.capacity:
            self.release_free_segments()
        if self.reserved + wanted > self.capacity:
            raise OutOfMemory(
                f"a segment of {wanted} B does not fit: {self.reserved} B of {self.capacity} B "
                "are reserved"
            )
        self.reserved += wanted
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        segment = Block(self._next_start + 1, wanted, pool)
        self._next_start += wanted + 1  # a gap of one byte: segments are never neighbours
        return segment

    def _split(self, block: Block, size: int) -> None:
        """Cut a block down to `size` and free the rest, if the rest is worth it."""
        rest_size = block.size - size
        is_worth_it = rest_size >= MIN_BLOCK_SIZE if block.pool.is_small else rest_size > SMALL_SIZE
        if not is_worth_it:
            return
        block.size = size
        rest = Block(block.start + size, rest_size, block.pool, block, block.after)
        if rest.after:
            rest.after.before = rest
        block.after = rest
        self._put_into_pool(rest)

    def _put_into_pool(self, block: Block) -> None:
        block.is_free = True
        insort(self._pools[block.pool], (block.size, block.start, block))

    def _take_from_pool(self, block: Block) -> Block:
        pool = self._pools[block.pool]
        del pool[bisect_left(pool, (block.size, block.start))]
        block.is_free = False
        return block


def _join(left: Block, right: Block) -> Block:
    """Merge `right` into its neighbour `left`."""
    left.size += right.size
    left.after = right.after
    if left.after:
        left.after.before = left
    return left
