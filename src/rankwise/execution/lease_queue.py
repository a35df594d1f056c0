"""The queue for GPUs: a folder of files that all runs of ours on a machine lock, of whatever user.

The folder has one file for each GPU (`UUID.card`), one for each job that waits or has a lease
(`TICKET.job`), and `queue`, which is locked while the folder is read or changed. Runs of several
versions may share a folder, so names and contents of these files must not change.

A lock (flock) decides, not the content. A job holds the lock of its own file for as long as one of
its processes lives, and the locks of its GPUs' files: exclusive for a whole GPU, shared for a
share. The kernel releases a lock when the last process that inherited it is gone. A crash
therefore leaves nothing to clean up, and neither process numbers nor clocks are trusted.

Which job is served when: gpu_packing.py. Standard library only.
"""

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import NamedTuple

from rankwise.execution.gpu_packing import Held, Need, Room, Waiting
from rankwise.execution.gpus import GIB

PATIENCE = 16  # leases that later jobs may get before a job becomes impatient

# Tickets and leases given so far. The length is fixed, so that one write replaces both.
COUNTERS = "{:020d} {:020d}\n"


class Job(NamedTuple):
    """A job that is alive, as its file in the folder describes it.

    Args:
        ticket: Its number in the queue.
        need: What it asks for.
        sizes: The GPUs that it may use: UUID -> bytes, 0 if unknown.
        uuids: The GPUs that it has; empty while it waits.
        ahead: How many jobs waited when it came.
        leases_before: How many leases had been given when it came.
        who: User and process, for messages.
    """

    ticket: int
    need: Need
    sizes: dict[str, int]
    uuids: tuple[str, ...]
    ahead: int
    leases_before: int
    who: str


class Grant(NamedTuple):
    """What a job was given.

    Args:
        uuids: Its GPUs.
        others_bytes: Memory that processes of other people use there.
        fds: Descriptors of the GPUs' locked files; the job has the GPUs while one is open.
    """

    uuids: tuple[str, ...]
    others_bytes: int
    fds: list[int]


class Queue:
    """The folder, locked while the context is entered; to be held for moments only."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> "Queue":
        self._fd = _open(self.folder / "queue")
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        counters = os.pread(self._fd, 64, 0) or b"0 0"
        self.tickets, self.leases = map(int, counters.split())
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)

    def enter(self, need: Need, sizes: dict[str, int]) -> tuple[int, Job]:
        """Join the end of the queue.

        Args:
            need: What the job asks for.
            sizes: The GPUs that it may use: UUID -> bytes, 0 if unknown.

        Returns:
            The descriptor of the job's own file, which is locked, and what the file says.
        """
        waiting = [job for job in self.jobs() if not job.uuids]
        self._count(self.tickets + 1, self.leases)
        who = f"{os.environ.get('USER', os.getuid())} (pid {os.getpid()})"
        job = Job(self.tickets, need, sizes, (), len(waiting), self.leases, who)
        fd = _open(self.folder / f"{job.ticket:012d}.job")
        fcntl.flock(fd, fcntl.LOCK_EX)
        _write(fd, job)
        return fd, job

    def jobs(self) -> list[Job]:
        """Every job that is alive, in the order of tickets.

        Files of dead jobs are removed, if they belong to this user.
        """
        names = os.listdir(self.folder)  # noqa: PTH208 - called often, and paths are slow
        jobs = []
        for name in sorted(names):
            job = _read_if_alive(f"{self.folder}/{name}") if name.endswith(".job") else None
            if job is not None:
                jobs.append(job)
        return jobs

    def pick(
        self, own: Job, others: dict[str, int], without: frozenset[str] = frozenset()
    ) -> tuple[str, ...] | None:
        """The GPUs that a waiting job may take now.

        Args:
            own: The job.
            others: UUID -> bytes that processes of other people use there.
            without: GPUs that it cannot have for another reason.

        Returns:
            UUIDs, or None while the job has to wait.
        """
        room, waiting = self._room(own.sizes, others)
        for job in waiting:
            if job.ticket < own.ticket:
                # At most `ahead` of these leases went to jobs that came before it.
                leases_since = self.leases - job.leases_before
                impatient = leases_since >= job.ahead + PATIENCE
                room.serve(Waiting(job.need, tuple(job.sizes), impatient))
        return room.pick(own.need, [uuid for uuid in own.sizes if uuid not in without])

    def take(self, fd: int, own: Job, used: dict[str, int]) -> Grant | None:
        """Give a waiting job its GPUs if it is due.

        Args:
            fd: The job's own file.
            own: The job.
            used: UUID -> bytes in use there, by all processes together.

        Returns:
            What it has now, or None while it has to wait.
        """
        others = self.others(own.sizes, used)
        lock = fcntl.LOCK_EX if own.need.whole else fcntl.LOCK_SH
        locked_by_others: frozenset[str] = frozenset()
        while True:
            uuids = self.pick(own, others, locked_by_others)
            if uuids is None:
                return None
            fds, busy = _lock_all([self.folder / f"{uuid}.card" for uuid in uuids], lock)
            if busy is None:
                _write(fd, own._replace(uuids=uuids))
                self._count(self.tickets, self.leases + 1)
                return Grant(uuids, sum(others.get(uuid, 0) for uuid in uuids), fds)
            # No job of ours has this GPU, but somebody locked its file, say with flock(1).
            locked_by_others |= {uuids[busy]}

    def others(self, sizes: dict[str, int], used: dict[str, int]) -> dict[str, int]:
        """Memory that processes of other people use: at least what exceeds our promises.

        A job of ours that does not use its whole share yet hides as much of theirs.

        Args:
            sizes: The GPUs: UUID -> bytes.
            used: UUID -> bytes in use there, by all processes together.

        Returns:
            UUID -> bytes.
        """
        room, _ = self._room(sizes, {})
        return {uuid: max(0, size - room.taken[uuid]) for uuid, size in used.items()}

    def why(self, own: Job) -> str:
        """One line that says what a job waits for."""
        jobs = [job for job in self.jobs() if job.ticket != own.ticket]
        ahead = [job for job in jobs if not job.uuids and job.ticket < own.ticket]
        reasons = []
        if len(ahead) == 1:
            reasons.append("1 job came before")
        elif ahead:
            reasons.append(f"{len(ahead)} jobs came before")
        for job in jobs:
            if set(job.uuids) & set(own.sizes):
                reasons.append(f"{job.who} has {describe(job.need)} on {', '.join(job.uuids)}")
        reason = "; ".join(reasons) or "others compute on the GPUs"
        return f"waits for {describe(own.need)}: {reason}"

    def _room(self, sizes: dict[str, int], others: dict[str, int]) -> tuple[Room, list[Job]]:
        """The room on all GPUs that a job knows of, and the jobs that wait."""
        jobs = self.jobs()
        all_sizes: dict[str, int] = {}
        for job in jobs:
            all_sizes |= job.sizes
        all_sizes |= sizes
        held = [Held(job.need, job.uuids) for job in jobs if job.uuids]
        waiting = [job for job in jobs if not job.uuids]
        return Room(all_sizes, held, others), waiting

    def _count(self, tickets: int, leases: int) -> None:
        self.tickets, self.leases = tickets, leases
        os.pwrite(self._fd, COUNTERS.format(tickets, leases).encode(), 0)


def describe(need: Need) -> str:
    """A need in words: `a whole GPU`, `1.50 GiB of a GPU`."""
    if need.whole == 1:
        return "a whole GPU"
    if need.whole:
        return f"{need.whole} whole GPUs"
    return f"{need.memory_bytes / GIB:.2f} GiB of a GPU"


# Files -------------------------------------------------------------------------------------------


def _open(path: Path | str, mode: int = os.O_RDWR) -> int:
    """Open a file that every user may lock, and make it if it does not exist.

    In a folder with the sticky bit, Linux refuses to open a file of another user with O_CREAT
    (fs.protected_regular). An existing file is therefore opened without it.
    """
    while True:  # between the two attempts, another process may make or remove the file
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, mode | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(fd, 0o666)  # whatever the umask
            return fd


def _lock_all(paths: list[Path], lock: int) -> tuple[list[int], int | None]:
    """Lock all files or none.

    Returns:
        The descriptors and None; or no descriptors and the index of the file that was locked
        already.
    """
    fds: list[int] = []
    for index, path in enumerate(paths):
        # Reading suffices for a lock, and another program may have made the file.
        fds.append(_open(path, os.O_RDONLY))
        if not _try_lock(fds[-1], lock):
            for fd in fds:
                os.close(fd)
            return [], index
    return fds, None


def _try_lock(fd: int, lock: int) -> bool:
    try:
        fcntl.flock(fd, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(fd: int, job: Job) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(job).encode(), 0)


def _read_if_alive(path: str) -> Job | None:
    """The job of a file, or None if nobody holds the file's lock; the file is then removed."""
    fd = _open(path)
    try:
        if _try_lock(fd, fcntl.LOCK_EX):
            with contextlib.suppress(PermissionError):  # another user's file; it means nothing now
                os.unlink(path)  # noqa: PTH108 - called often, and paths are slow
            return None
        ticket, need, sizes, uuids, *rest = json.loads(os.pread(fd, 1 << 20, 0))
        return Job(ticket, Need(*need), sizes, tuple(uuids), *rest)
    finally:
        os.close(fd)
