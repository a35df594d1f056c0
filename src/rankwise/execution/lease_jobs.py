"""Jobs of the queue for GPUs, as their files describe them (lease_queue.py).

Every user may write such a file. What does not describe a job, or is kept locked by somebody to
whom it does not belong, is no job. Standard library only.
"""

import contextlib
import fcntl
import json
import os
import re
from typing import NamedTuple

from rankwise.execution.gpu_packing import Need
from rankwise.execution.gpus import GpuError
from rankwise.execution.lease_files import open_existing, try_lock
from rankwise.execution.lease_locks import Locks

TICKET_LIMIT = 10**15  # no machine gives so many leases
MAX_ENTRY_BYTES = 1 << 20
MAX_WHO = 100  # last characters of `who` that messages show
PROCESS = re.compile(r"\(pid (\d{1,10})\)$")
JOB_NAME = re.compile(r"(\d{12,15})\.job")


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


def job_name(ticket: int) -> str:
    """The name of a job's file."""
    return f"{ticket:012d}.job"


def write_job(fd: int, job: Job) -> None:
    """Replace the content of a job's file."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(job).encode(), 0)


def read_if_alive(path: str, locks: Locks) -> Job | None:
    """The job of a file; None if the file describes no job, or nobody has its lock any more.

    The file of a dead job is removed if it belongs to this user.
    """
    try:
        fd = open_existing(path)
    except (GpuError, FileNotFoundError):  # nothing that a job of ours has made, or gone by now
        return None
    try:
        if try_lock(fd, fcntl.LOCK_EX):
            with contextlib.suppress(PermissionError):  # another user's file; it means nothing now
                os.unlink(path)  # noqa: PTH108 - called often, and paths are slow
            return None
        job = parse(os.pread(fd, MAX_ENTRY_BYTES, 0), os.path.basename(path))  # noqa: PTH119
        return None if job is None or locks.is_foreign(fd, process_of(job)) else job
    finally:
        os.close(fd)


def process_of(job: Job) -> int:
    """The process that wrote a job's file and took its lock; 0 if the file does not say it."""
    match = PROCESS.search(job.who)
    return int(match[1]) if match else 0


def parse(content: bytes, name: str) -> Job | None:
    """The job that a file describes, or None if it describes none that can be served."""
    match = JOB_NAME.fullmatch(name)
    try:
        ticket, need, sizes, uuids, ahead, leases_before, who = json.loads(content)
        job = Job(ticket, Need(*need), dict(sizes), tuple(uuids), ahead, leases_before, str(who))
    except (ValueError, TypeError, RecursionError):
        return None
    numbers = [job.ticket, *job.need, *job.sizes.values(), job.ahead, job.leases_before]
    are_counts = all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    are_names = all(isinstance(uuid, str) for uuid in job.uuids)
    if not (match and are_counts and are_names) or job.ticket != int(match[1]):
        return None
    if job.need.whole > len(job.sizes):  # it would wait for ever, and others for it
        return None
    printable = "".join(character for character in job.who if character.isprintable())
    return job._replace(who=printable[-MAX_WHO:])
