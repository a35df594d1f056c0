"""CUDA's caching allocator as torch has it, simulated: what a log of storages reserves, and whether it fits.

Sizes are rounded up to 512 B. Up to 1 MiB come from segments of 2 MiB, up to 10 MiB from segments of 20 MiB, larger ones from
segments of their own in steps of 2 MiB. A free block serves the smallest request's best fit and is split if more than 512 B
(small) or 1 MiB (large) remain; neighbours that are free again are joined. Before it gives up, the allocator hands back the
segments that are wholly free. Source: c10/cuda/CUDACachingAllocator.cpp with default settings (one stream, no expandable
segments). What kernels ask of cuBLAS and cuSOLVER is not in a log.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

MIB = 2**20
ROUND, SMALL, SMALL_SEGMENT, LARGE_SEGMENT, MIN_LARGE, ROUND_LARGE = (
    512,
    MIB,
    2 * MIB,
    20 * MIB,
    10 * MIB,
    2 * MIB,
)


class OutOfMemory(MemoryError):
    """The log does not fit into the capacity."""


def rounded(size: int) -> int:
    """Bytes of the block that a storage of `size` bytes asks for; nothing for an empty one."""
    return -(-size // ROUND) * ROUND


def segment(size: int) -> int:
    """Bytes of the segment that is opened for a rounded size."""
    if size <= SMALL:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < MIN_LARGE else -(-size // ROUND_LARGE) * ROUND_LARGE


@dataclass(eq=False)
class Block:
    """A stretch of a segment, linked to its neighbours."""

    start: int
    size: int
    small: bool
    before: "Block | None" = None
    after: "Block | None" = None
    free: bool = False

    @property
    def alone(self) -> bool:
        """Whether the block is its whole segment."""
        return self.before is None and self.after is None


@dataclass
class Allocator:
    """Blocks and segments under a capacity in bytes."""

    capacity: float = float("inf")
    reserved: int = 0
    allocated: int = 0
    peak_reserved: int = 0
    peak_allocated: int = 0
    _free: dict[bool, list[tuple[int, int, Block]]] = field(
        default_factory=lambda: {True: [], False: []}
    )
    _next: int = 0  # address of the next segment

    def take(self, size: int) -> Block | None:
        """A block for a storage.

        Raises:
            OutOfMemory: no free block is large enough, and no new segment fits into the capacity.
        """
        if not (size := rounded(size)):
            return None
        block = self._find(size) or self._open(size)
        self._split(block, size)
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def _find(self, size: int) -> Block | None:
        free = self._free[size <= SMALL]
        place = bisect_left(free, (size,))
        return self._out(free[place][2]) if place < len(free) else None

    def _open(self, size: int) -> Block:
        wanted = segment(size)
        if self.reserved + wanted > self.capacity:
            self._hand_back()
        if self.reserved + wanted > self.capacity:
            raise OutOfMemory(
                f"{wanted} B more than {self.reserved} B reserved of {self.capacity} B"
            )
        self.reserved += wanted
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._next += wanted + 1  # segments are no neighbours
        return Block(self._next - wanted, wanted, size <= SMALL)

    def _hand_back(self) -> None:
        for free in self._free.values():
            self.reserved -= sum(size for size, _, block in free if block.alone)
            free[:] = [item for item in free if not item[2].alone]

    def _split(self, block: Block, size: int) -> None:
        rest = block.size - size
        if rest < ROUND if block.small else rest <= SMALL:
            return
        block.size = size
        block.after = Block(block.start + size, rest, block.small, block, block.after)
        if block.after.after:
            block.after.after.before = block.after
        self._put(block.after)

    def give(self, block: Block | None) -> None:
        """Free a block, joining it with free neighbours."""
        if block is None:
            return
        self.allocated -= block.size
        if block.before and block.before.free:
            block = self._join(self._out(block.before), block)
        if block.after and block.after.free:
            block = self._join(block, self._out(block.after))
        self._put(block)

    @staticmethod
    def _join(left: Block, right: Block) -> Block:
        left.size += right.size
        left.after = right.after
        if left.after:
            left.after.before = left
        return left

    def _put(self, block: Block) -> None:
        block.free = True
        insort(
            self._free[block.small], (block.size, block.start, block)
        )  # no two blocks start at one address

    def _out(self, block: Block) -> Block:
        free = self._free[block.small]
        del free[bisect_left(free, (block.size, block.start))]
        block.free = False
        return block
