"""Which GPU a job gets: one rule for all jobs, worked out anew from what is held and who waits.

A job takes whole GPUs, or a share: some bytes of one GPU. A share goes to the GPU with the most
room, because an idle GPU helps nobody.

Jobs are served in the order in which they came. A job that cannot be served yet closes the GPU
that it will most likely get: no later job enters this GPU, so it drains, while the others go on
being filled. A job that too many later jobs have overtaken is *impatient* and closes every GPU.

Nothing is read or locked here (lease_queue.py does that), so the rule can be tested by itself.
Standard library only.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Need(NamedTuple):
    """The need of a job.

    Args:
        whole: Number of whole GPUs, each with at least `memory_bytes`; 0 for a share of one GPU.
        memory_bytes: Memory of each whole GPU, or the size of the share.
    """

    whole: int
    memory_bytes: int


class Held(NamedTuple):
    """The holding of a job: its need, and the UUIDs of its GPUs."""

    need: Need
    uuids: tuple[str, ...]


class Waiting(NamedTuple):
    """A job that waits.

    Args:
        need: What it asks for.
        uuids: The GPUs that it may use.
        impatient: Whether too many later jobs have overtaken it.
    """

    need: Need
    uuids: tuple[str, ...]
    impatient: bool


class Room:
    """The free memory on each GPU, and which GPUs are closed to later jobs.

    Args:
        sizes: UUID -> bytes of the GPU.
        held: What running jobs of ours have.
        others: UUID -> bytes that processes of other people use there.
    """

    def __init__(self, sizes: Mapping[str, int], held: Iterable[Held], others: Mapping[str, int]):
        self.sizes = dict(sizes)
        self.others = dict(others)
        self.jobs = dict.fromkeys(sizes, 0)  # jobs of ours on each GPU
        self.taken = dict.fromkeys(sizes, 0)  # bytes promised to them
        self.closed: set[str] = set()
        for holding in held:
            known = [uuid for uuid in holding.uuids if uuid in self.sizes]
            self.fill(holding.need, known)

    def fill(self, need: Need, uuids: Iterable[str]) -> None:
        """Take these GPUs, or a share of one, out of the free memory."""
        for uuid in uuids:
            self.jobs[uuid] += 1
            self.taken[uuid] += self.sizes[uuid] if need.whole else need.memory_bytes

    def free(self, uuid: str) -> int:
        """Bytes of a GPU that may still be given."""
        return self.sizes[uuid] - self.taken[uuid] - self.others.get(uuid, 0)

    def pick(self, need: Need, uuids: Iterable[str]) -> tuple[str, ...] | None:
        """The GPUs among `uuids` that serve the need now, or None if it has to wait."""
        usable = [uuid for uuid in self.suitable(need, uuids) if uuid not in self.closed]
        if need.whole:
            return self._pick_whole(need, usable)
        roomiest = max(usable, key=self.free, default=None)
        if roomiest is None or self.free(roomiest) < need.memory_bytes:
            return None
        return (roomiest,)

    def _pick_whole(self, need: Need, usable: list[str]) -> tuple[str, ...] | None:
        """GPUs without a job of ours; first those on which other people use least."""
        idle = [uuid for uuid in usable if self.jobs[uuid] == 0]
        if len(idle) < need.whole:
            return None
        idle.sort(key=lambda uuid: self.others.get(uuid, 0))
        return tuple(idle[: need.whole])

    def suitable(self, need: Need, uuids: Iterable[str]) -> list[str]:
        """The GPUs that would serve the need if they were empty."""
        known = [uuid for uuid in uuids if uuid in self.sizes]
        return [uuid for uuid in known if self.sizes[uuid] >= need.memory_bytes]

    def serve(self, job: Waiting) -> bool:
        """Reserve for an earlier job what it is due, before a later job picks.

        If the job can be served now, it gets its share (it takes it when it asks next). If not, the
        GPUs that it waits for are closed.

        Returns:
            Whether it can be served now.
        """
        due = self.pick(job.need, job.uuids)
        if due:
            self.fill(job.need, due)
        suitable = self.suitable(job.need, job.uuids)
        if job.impatient:
            self.closed |= set(suitable)
        elif not due:
            open_gpus = [uuid for uuid in suitable if uuid not in self.closed]
            open_gpus.sort(key=lambda uuid: self._wait_for(job.need, uuid))
            self.closed |= set(open_gpus[: max(job.need.whole, 1)])
        return due is not None

    def _wait_for(self, need: Need, uuid: str) -> tuple[int, ...]:
        """A sort key: the GPU that will serve the need soonest comes first.

        A whole GPU is free soonest where fewest jobs run; a share, where most memory is free.
        """
        if need.whole:
            return self.jobs[uuid], -self.free(uuid)
        return (-self.free(uuid),)
