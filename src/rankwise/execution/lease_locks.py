"""Locks of the queue for GPUs (lease_queue.py), and who has them. Standard library only."""

import fcntl
import os
import time
from pathlib import Path

from rankwise.execution.gpus import GpuError
from rankwise.execution.lease_files import (
    open_existing,
    open_shared,
    refusal,
    try_lock,
    user_name,
)

LOCKS = Path("/proc/locks")
QUEUE_TIMEOUT_S = 120.0  # for another process to unlock the folder; jobs lock it for moments
QUEUE_POLL_S = 0.002


class Locks:
    """The processes that have locked files (flock), as the kernel lists them.

    Where the kernel does not say it (another system, a container that hides processes, file systems
    with device numbers of their own), nothing is known, and nothing is taken to be foreign.
    """

    def __init__(self) -> None:
        self._pids: dict[tuple[int, int, int], list[int]] | None = None

    def pids(self, fd: int) -> list[int]:
        """The processes that took the locks of an open file."""
        if self._pids is None:
            self._pids = _read_locks()
        status = os.fstat(fd)
        device = status.st_dev
        return self._pids.get((os.major(device), os.minor(device), status.st_ino), [])

    def is_foreign(self, fd: int, pid: int) -> bool:
        """Whether the lock of a job's file is not the job's, which has ended.

        The kernel lists a lock by the process that took it, also when that process has ended and
        one that it started has the lock. A job in a container has another number there than here,
        so a living process of the file's owner is taken to be the job.

        Args:
            fd: The job's file, which is locked.
            pid: The process that took the job's lock, by its own account.
        """
        owner = os.fstat(fd).st_uid
        users = {holder: _user_of(holder) for holder in self.pids(fd)}
        is_known = bool(users)
        is_its_own = any(
            user == owner or (user is None and holder == pid) for holder, user in users.items()
        )
        return is_known and not is_its_own

    def describe(self, fd: int) -> str:
        """Who has the lock of an open file, in words."""
        names = []
        for pid in self.pids(fd):
            user = _user_of(pid)
            whose = "which has ended" if user is None else f"user {user_name(user)}"
            names.append(f"pid {pid} ({whose})")
        return ", ".join(names) or "a process that the system does not name"


def _user_of(pid: int) -> int | None:
    """The user of a process; None if it has ended or is hidden."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - called often, and paths are slow
    except OSError:
        return None


def _read_locks() -> dict[tuple[int, int, int], list[int]]:
    """Device and inode -> processes. A line: `2: FLOCK ADVISORY WRITE 3916 fe:00:2150067 0 EOF`."""
    pids: dict[tuple[int, int, int], list[int]] = {}
    try:
        text = LOCKS.read_text(encoding="utf-8")
    except OSError:
        return pids
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or not fields[4].isdigit():
            continue  # `->` in second place marks a process that waits; -1 one that is hidden
        major, minor, inode = fields[5].split(":")
        pids.setdefault((int(major, 16), int(minor, 16), int(inode)), []).append(int(fields[4]))
    return pids


def lock_folder(path: Path) -> int:
    """Open and lock the file `queue`.

    Raises:
        GpuError: It is no ordinary file, or another process keeps it locked.
    """
    end = time.monotonic() + QUEUE_TIMEOUT_S
    while True:
        fd = open_shared(path)
        while not try_lock(fd, fcntl.LOCK_EX):
            if time.monotonic() > end:
                holder = Locks().describe(fd)
                os.close(fd)
                raise refusal(path, f"a file that {holder} has kept locked")
            time.sleep(QUEUE_POLL_S)
        # Its owner may have replaced it while we waited: then the lock is that of no queue.
        if os.path.lexists(path) and os.path.samestat(os.lstat(path), os.fstat(fd)):
            return fd
        os.close(fd)
        if time.monotonic() > end:
            raise refusal(path, "a file that is replaced again and again")


def lock_all(paths: list[Path], lock: int) -> tuple[list[int], int | None]:
    """Lock all files or none.

    Returns:
        The descriptors and None; or no descriptors and the index of the file that was locked
        already, or cannot be locked.
    """
    fds: list[int] = []
    for index, path in enumerate(paths):
        is_locked = False
        try:
            # Reading suffices for a lock, and another program may have made the file.
            fds.append(open_shared(path, os.O_RDONLY))
            is_locked = try_lock(fds[-1], lock)
        except GpuError:  # somebody has replaced it by something else since the job came
            pass
        if not is_locked:
            for fd in fds:
                os.close(fd)
            return [], index
    return fds, None


def foreign_lock(path: Path) -> list[str]:
    """A clause that says who locked the file of a GPU that no job has; none if nobody did."""
    try:
        fd = open_existing(path, os.O_RDONLY)
    except FileNotFoundError:
        return []
    except GpuError as error:
        return [str(error)]
    try:
        if try_lock(fd, fcntl.LOCK_EX):
            return []
        return [f"{path} is locked by {Locks().describe(fd)}"]
    finally:
        os.close(fd)


def usable(folder: Path, uuids: list[str]) -> tuple[list[str], list[GpuError]]:
    """The GPUs whose files can be locked, and a sentence for each of the others."""
    good, refusals = [], []
    for uuid in uuids:
        try:
            os.close(open_shared(folder / f"{uuid}.card", os.O_RDONLY))
        except GpuError as error:
            refusals.append(error)
        else:
            good.append(uuid)
    return good, refusals
