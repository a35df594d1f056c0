"""Names of processes that no later process has, and whether such a process still runs.

A process number is used again after a while, and after a restart of the machine. So a name holds
four facts about a process: its host, its number, the boot of the machine and the process's start
time. It also holds the namespace of process numbers, because a container may have its own.

A name stands in the names of unfinished files (`core/files.py`), in the records of jobs
(`core/progress.py`), and in the environment of jobs, which end with the process that planned them
(`execution/lifeline.py`).

Standard library only: the Snakefile imports this module.
"""

import os
import socket
from functools import cache
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")
# Fields of /proc/PID/stat behind the program's name.
STATE_FIELD, START_FIELD = 0, 19
ENDED = ("Z", "X")  # states of a process that has ended and whose parent has not noticed
UNKNOWN = "0"


def name(pid: int | None = None) -> str:
    """The name of a process of this machine: `HOST-PID.BOOT.NAMESPACE.START`.

    Args:
        pid: Its number; this process if not given. A process that is gone has the start time `0`.
    """
    pid = os.getpid() if pid is None else pid
    boot, namespace = _machine()
    return f"{socket.gethostname()}-{pid}.{boot}.{namespace}.{_start(pid) or UNKNOWN}"


def is_alive(name: str) -> bool | None:
    """Whether a process runs.

    Args:
        name: As `name` gives it, or any text that ends with one; the host and the number alone
            (`HOST-PID`) are enough to ask whether any process has this number.

    Returns:
        None if that cannot be known: it is no name, or one of another machine or container.
    """
    before, _, process = name.rpartition("-")
    pid, _, marks = process.partition(".")
    host = socket.gethostname()
    if not pid.isdigit() or not (before == host or before.endswith(f"-{host}")):
        return None
    if not marks:
        return _has_process(int(pid))
    boot, namespace, start = (marks.split(".") + [UNKNOWN] * 3)[:3]
    own_boot, own_namespace = _machine()
    if boot != own_boot:  # the machine was restarted since
        return False
    if namespace != own_namespace:
        return None
    if start == UNKNOWN:
        return _has_process(int(pid))
    return _start(int(pid)) == start


@cache
def _machine() -> tuple[str, str]:
    """The current boot of the machine, and the namespace of this process's number."""
    try:
        boot = BOOT.read_text(encoding="utf-8").strip().replace("-", "")[:8]
        return boot, str(NAMESPACE.stat().st_ino)
    except OSError:  # a system without /proc
        return UNKNOWN, UNKNOWN


def _start(pid: int) -> str | None:
    """When a process started, in ticks since the boot; None if it has ended or is not known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[STATE_FIELD] in ENDED else fields[START_FIELD]


def _has_process(pid: int) -> bool:
    """Whether any process has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
