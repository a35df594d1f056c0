"""Facts about a process that SIGKILL ended: it could report nothing itself.

The kernel sends SIGKILL when memory runs out, to the process that it chooses, and counts how often
it did: for the machine in /proc/vmstat, and for a group of processes (a container, a job of SLURM)
in the memory controller's files. Its log names the process, where it can be read. So the counts at
the beginning of a job and after its end tell whether memory was the cause.

Standard library only.
"""

import os
from contextlib import suppress
from pathlib import Path

VMSTAT = Path("/proc/vmstat")
GROUPS = Path("/proc/self/cgroup")
CGROUP = Path("/sys/fs/cgroup")
KERNEL_LOG = Path("/dev/kmsg")
LONGEST_RECORD_BYTES = 8192
GIB = 2**30
SIGKILL_SEEN = "ended by SIGKILL"
GONE = "ended by a signal that it could not answer, such as SIGKILL"


def counts() -> dict[str, int]:
    """How often the kernel's OOM killer has ended a process; empty where that cannot be read.

    Returns:
        `machine`: on this machine. `group`: in this process's control group.
    """
    found = {"machine": _count(VMSTAT)}
    with suppress(OSError):
        for line in GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # the second version of control groups
                file = CGROUP / path.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                file = CGROUP / "memory" / path.lstrip("/") / "memory.oom_control"
            else:
                continue
            count = _count(file)
            found["group"] = count if found.get("group") is None else found["group"]
    return {name: count for name, count in found.items() if count is not None}


def _count(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None


def peak_bytes() -> int | None:
    """The peak of this process's resident memory until now; None where that cannot be read."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


def sentence(begin: str, pid: int | None, peak: int | None, before: dict[str, int]) -> str:
    """The line about a process that a signal ended.

    Args:
        begin: What is known of the signal: SIGKILL_SEEN or GONE.
        pid: Its number.
        peak: The last known peak of its resident memory, in bytes.
        before: `counts()` when it began.
    """
    parts = [begin]
    if peak is not None:
        parts.append(f"peak of its resident memory: {peak / GIB:.2f} GiB")
    now = counts()
    known = before.keys() & now.keys()
    if pid is not None and _is_in_kernel_log(pid):
        parts.append("the kernel's log says that its OOM killer ended it: host memory ran out")
    elif any(now[name] > before[name] for name in known):
        parts.append(
            "the kernel's OOM killer has ended a process since it began: host memory ran out"
        )
    elif known:
        parts.append(
            "the kernel's OOM killer has ended no process since it began: another process sent the "
            "signal"
        )
    else:
        parts.append("the system sends it when host memory runs out, and does not say if it did")
    return "; ".join(parts)


def _is_in_kernel_log(pid: int) -> bool:
    """Whether the kernel's log, if it can be read, has this process as ended by the OOM killer."""
    with suppress(OSError):
        log = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while record := os.read(log, LONGEST_RECORD_BYTES):
                if f"Killed process {pid} ".encode() in record:
                    return True
        finally:
            os.close(log)
    return False
