"""The queue for cards: a folder of files that all runs of ours on a machine lock, whoever's they are.

There is a file for each card and one for each job that waits for one or has one. What counts is who holds a lock (flock): a job
has its own file locked for as long as a process of it lives, and its cards' files, alone for a whole card, together with others
for a share. The kernel lets go when the last process that inherited them is gone, so nothing is left to clean up after a crash,
and neither process numbers nor clocks are trusted. Who is served when: packing.py. Standard library only.
"""

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import NamedTuple

from rankwise.execution.gpu_packing import Held, Need, Room, Waiting
from rankwise.execution.gpus import GIB

PATIENCE = 16  # jobs that came later and were served first, before everything waits for a job
COUNTERS = "{:020d} {:020d}\n"  # tickets and leases given so far: always as long, so that one write replaces it


class Job(NamedTuple):
    """What the folder says of a job that is alive."""

    ticket: int
    need: Need
    sizes: dict[str, int]  # cards that it may use, bytes; 0: not known
    uuids: tuple[str, ...]  # cards that it has
    ahead: int  # how many waited when it came
    given: int  # leases given until then
    who: str


class Queue:
    """The folder, locked: nobody else reads or changes it meanwhile. For moments only."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> "Queue":
        self._fd = _open(self.folder / "queue")
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.tickets, self.given = map(int, (os.pread(self._fd, 64, 0) or b"0 0").split())
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)

    def _count(self, tickets: int, given: int) -> None:
        self.tickets, self.given = tickets, given
        os.pwrite(self._fd, COUNTERS.format(tickets, given).encode(), 0)

    def enter(self, need: Need, sizes: dict[str, int]) -> tuple[int, Job]:
        """Stand at the end: the descriptor of this job's own file, locked, and what it says."""
        ahead = sum(not job.uuids for job in self.jobs())
        self._count(self.tickets + 1, self.given)
        who = f"{os.environ.get('USER', os.getuid())} (pid {os.getpid()})"
        job = Job(self.tickets, need, sizes, (), ahead, self.given, who)
        fd = _open(self._file(job.ticket))
        fcntl.flock(fd, fcntl.LOCK_EX)
        _write(fd, job)
        return fd, job

    def _file(self, ticket: int) -> Path:
        return self.folder / f"{ticket:012d}.job"

    def jobs(self) -> list[Job]:
        """Every job that is alive, first come first; what the dead have left is removed, if they were this user's."""
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(".job"))  # noqa: PTH208 - called often
        return [job for name in names if (job := _alive(f"{self.folder}/{name}"))]

    def pick(
        self, own: Job, others: dict[str, int], without: frozenset[str] = frozenset()
    ) -> tuple[str, ...] | None:
        """The cards that this job is due now, where others have so many bytes on them; None while it has to wait."""
        room, waiting = self._room(own.sizes, others)
        for job in waiting:
            impatient = self.given - job.given >= job.ahead + PATIENCE
            if job.ticket < own.ticket:
                room.serve(Waiting(job.need, tuple(job.sizes), impatient))
        return room.pick(own.need, [uuid for uuid in own.sizes if uuid not in without])

    def _room(self, own: dict[str, int], others: dict[str, int]) -> tuple[Room, list[Job]]:
        jobs = self.jobs()
        sizes = {
            uuid: size
            for each in [*(job.sizes for job in jobs), own]
            for uuid, size in each.items()
        }
        held = [Held(job.need, job.uuids) for job in jobs if job.uuids]
        return Room(sizes, held, others), [job for job in jobs if not job.uuids]

    def others(self, sizes: dict[str, int], used: dict[str, int]) -> dict[str, int]:
        """UUID -> bytes in use beyond what we have promised: at least that is others'. Ours that are yet to grow hide some."""
        room, _ = self._room(sizes, {})
        return {uuid: max(0, size - room.taken[uuid]) for uuid, size in used.items()}

    def take(
        self, fd: int, own: Job, used: dict[str, int]
    ) -> tuple[tuple[str, ...], int, list[int]] | None:
        """UUIDs of the cards that this job now has, bytes of others on them, and the locks' descriptors; None: wait."""
        others, busy = self.others(own.sizes, used), frozenset()
        while uuids := self.pick(own, others, busy):
            how = fcntl.LOCK_EX if own.need.cards else fcntl.LOCK_SH
            fds, taken = _lock_all([self.folder / f"{uuid}.card" for uuid in uuids], how)
            if taken == len(uuids):
                _write(fd, own._replace(uuids=uuids))
                self._count(self.tickets, self.given + 1)
                return uuids, sum(others.get(uuid, 0) for uuid in uuids), fds
            busy |= {uuids[taken]}  # somebody's flock(1)
        return None

    def why(self, own: Job) -> str:
        """What a job waits for."""
        jobs = [job for job in self.jobs() if job.ticket != own.ticket]
        ahead = sum(not job.uuids and job.ticket < own.ticket for job in jobs)
        holders = [job for job in jobs if set(job.uuids) & set(own.sizes)]
        names = [f"{job.who} has {said(job.need)} on {', '.join(job.uuids)}" for job in holders]
        first = [f"{ahead} job{'s' * (ahead != 1)} came before"] if ahead else []
        return f"waits for {said(own.need)}: {'; '.join([*first, *names]) or 'others compute on the cards'}"


def said(need: Need) -> str:
    """`a whole card`, `1.50 GiB of a card`."""
    if need.cards:
        return "a whole card" if need.cards == 1 else f"{need.cards} whole cards"
    return f"{need.memory_bytes / GIB:.2f} GiB of a card"


# Files ----------------------------------------------------------------------------------------------------------------


def _open(path: Path | str, how: int = os.O_RDWR) -> int:
    """A file that every user may lock, made if it lacks. With O_CREAT the kernel refuses others' files in such a folder."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW)
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, how | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(fd, 0o666)
            return fd


def _lock_all(paths: list[Path], how: int) -> tuple[list[int], int]:
    """Descriptors of the files, all locked; or none, and which one was locked already."""
    fds: list[int] = []
    for number, path in enumerate(paths):
        fds.append(_open(path, os.O_RDONLY))  # it may be a file that another program has made
        if not _locked(fds[-1], how):
            for fd in fds:
                os.close(fd)
            return [], number
    return fds, len(paths)


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(fd: int, job: Job) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(job).encode(), 0)


def _alive(path: str) -> Job | None:
    fd = _open(path)
    try:
        if _locked(fd, fcntl.LOCK_EX):
            with contextlib.suppress(PermissionError):  # another user's: it says nothing any more
                os.unlink(path)  # noqa: PTH108
            return None
        ticket, need, sizes, uuids, *rest = json.loads(os.pread(fd, 1 << 20, 0))
        return Job(ticket, Need(*need), sizes, tuple(uuids), *rest)
    finally:
        os.close(fd)
