"""The queue for GPUs: a folder of files that all runs of ours on a machine lock, of whatever user.

The folder has one file for each GPU (`UUID.card`), one for each job that waits or has a lease
(`TICKET.job`), and `queue`, which is locked while the folder is read or changed. Runs of several
versions may share a folder, so names and contents of these files must not change.

A lock (flock) decides, not the content. A job holds the lock of its own file for as long as one of
its processes lives, and the locks of its GPUs' files: exclusive for a whole GPU, shared for a
share. The kernel releases a lock when the last process that inherited it is gone. A crash or a
restart of the machine therefore leaves nothing to clean up, and no process number is trusted.

Any user may write into the folder. What is no job's file is passed over, and so is a file whose
lock another user took (lease_jobs.py); a GPU whose file cannot be locked is not given; a folder
that somebody keeps locked is refused after two minutes.

Which job is served when: gpu_packing.py. Standard library only.
"""

import fcntl
import os
import re
from pathlib import Path
from typing import NamedTuple

from rankwise.execution.gpu_packing import Held, Need, Room, Waiting
from rankwise.execution.gpus import GIB
from rankwise.execution.lease_files import create, refusal, try_lock
from rankwise.execution.lease_jobs import TICKET_LIMIT, Job, job_name, read_if_alive, write_job
from rankwise.execution.lease_locks import Locks, foreign_lock, lock_all, lock_folder

PATIENCE = 16  # leases that later jobs may get before a job becomes impatient
TICKETS_TRIED = 1000  # names of job files that others may have taken

# Tickets and leases given so far. The length is fixed, so that one write replaces both.
COUNTERS = "{:020d} {:020d}\n"


class Grant(NamedTuple):
    """The GPUs that a job was given.

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
        self._fd = lock_folder(self.folder / "queue")
        try:
            self.tickets, self.leases = self._read_counters()
        except BaseException:
            os.close(self._fd)
            raise
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
        fd = self._create_job_file()
        who = f"{os.environ.get('USER', os.getuid())} (pid {os.getpid()})"
        job = Job(self.tickets, need, sizes, (), len(waiting), self.leases, who)
        write_job(fd, job)
        return fd, job

    def jobs(self) -> list[Job]:
        """Every job that is alive, in the order of tickets.

        Files of dead jobs are removed, if they belong to this user.
        """
        names = os.listdir(self.folder)  # noqa: PTH208 - called often, and paths are slow
        locks = Locks()
        jobs = []
        for name in names:
            job = read_if_alive(f"{self.folder}/{name}", locks) if name.endswith(".job") else None
            if job is not None:
                jobs.append(job)
        return sorted(jobs, key=lambda job: job.ticket)

    def pick(
        self,
        own: Job,
        others: dict[str, int],
        without: frozenset[str] = frozenset(),
        passed: frozenset[int] = frozenset(),
    ) -> tuple[str, ...] | None:
        """The GPUs that a waiting job may take now.

        Args:
            own: The job.
            others: UUID -> bytes that processes of other people use there.
            without: GPUs that it cannot have for another reason.
            passed: Tickets of earlier jobs for which it does not wait.

        Returns:
            UUIDs, or None while the job has to wait.
        """
        room, _ = self._serve_earlier(own, others, passed)
        return room.pick(own.need, [uuid for uuid in own.sizes if uuid not in without])

    def idle_ahead(self, own: Job, used: dict[str, int]) -> frozenset[int]:
        """Tickets of earlier jobs that wait although they may take their GPUs now.

        A job asks every second, so one that stays in this set has been stopped, or is none.

        Args:
            own: The job that waits behind them.
            used: UUID -> bytes in use there, by all processes together.
        """
        return self._serve_earlier(own, self.others(own.sizes, used), frozenset())[1]

    def take(
        self, fd: int, own: Job, used: dict[str, int], passed: frozenset[int] = frozenset()
    ) -> Grant | None:
        """Give a waiting job its GPUs if it is due.

        Args:
            fd: The job's own file.
            own: The job.
            used: UUID -> bytes in use there, by all processes together.
            passed: Tickets of earlier jobs for which it does not wait.

        Returns:
            What it has now, or None while it has to wait.
        """
        others = self.others(own.sizes, used)
        lock = fcntl.LOCK_EX if own.need.whole else fcntl.LOCK_SH
        locked_by_others: frozenset[str] = frozenset()
        while True:
            uuids = self.pick(own, others, locked_by_others, passed)
            if uuids is None:
                return None
            fds, busy = lock_all([self.card(uuid) for uuid in uuids], lock)
            if busy is None:
                write_job(fd, own._replace(uuids=uuids))
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
        held = {uuid for job in jobs for uuid in job.uuids}
        for job in jobs:
            if set(job.uuids) & set(own.sizes):
                reasons.append(f"{job.who} has {describe(job.need)} on {', '.join(job.uuids)}")
        for uuid in own.sizes:
            if uuid not in held:
                reasons += foreign_lock(self.card(uuid))
        reason = "; ".join(reasons) or "others compute on the GPUs"
        return f"waits for {describe(own.need)}: {reason}"

    def card(self, uuid: str) -> Path:
        """The file of a GPU, which is locked by the jobs that have it."""
        return self.folder / f"{uuid}.card"

    def _serve_earlier(
        self, own: Job, others: dict[str, int], passed: frozenset[int]
    ) -> tuple[Room, frozenset[int]]:
        """The room that earlier jobs leave, and the tickets of those that may take GPUs now."""
        room, waiting = self._room(own.sizes, others)
        served = set()
        for job in waiting:
            if job.ticket < own.ticket and job.ticket not in passed:
                # At most `ahead` of these leases went to jobs that came before it.
                leases_since = self.leases - job.leases_before
                impatient = leases_since >= job.ahead + PATIENCE
                if room.serve(Waiting(job.need, tuple(job.sizes), impatient)):
                    served.add(job.ticket)
        return room, frozenset(served)

    def _create_job_file(self) -> int:
        """A new file for the next ticket, locked. Names that are taken are passed over.

        Raises:
            GpuError: Somebody has taken all names that were tried, or the counters are used up.
        """
        for _ in range(TICKETS_TRIED):
            self._count(self.tickets + 1, self.leases)
            path = self.folder / job_name(self.tickets)
            try:
                fd = create(path)
            except FileExistsError:
                continue
            if try_lock(fd, fcntl.LOCK_EX):
                return fd
            os.close(fd)  # another process locked it at once, and could keep us waiting
        raise refusal(path, "a file that no job has made")

    def _read_counters(self) -> tuple[int, int]:
        """Tickets and leases given so far; from the jobs' files if the counters are junk."""
        content = os.pread(self._fd, 64, 0)
        match = re.fullmatch(rb"(\d{1,20}) (\d{1,20})\s*", content or b"0 0")
        counters = tuple(map(int, match.groups())) if match else ()
        if counters and max(counters) < TICKET_LIMIT - TICKETS_TRIED:
            return counters
        jobs = self.jobs()
        tickets = max((job.ticket for job in jobs), default=0)
        if tickets >= TICKET_LIMIT - TICKETS_TRIED:
            raise refusal(self.folder / job_name(tickets), "a ticket that no job was given")
        return tickets, max((job.leases_before for job in jobs), default=0)

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
