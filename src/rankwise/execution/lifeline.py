"""Jobs end with the process that planned them, however that process ends.

Snakemake cannot stop its jobs when SIGKILL ends it. So each job asks Linux for SIGTERM when its
parent process is gone. That alone is not enough: the parent may have ended before the job asked,
and the parent of a fork of the worker server is the server. So `RANKWISE_PLANNER` holds the name of
the process that planned the job (`core/process_names.py`), and a job whose planner is gone neither
starts nor writes a result.

SIGTERM ends a job by SystemExit, so that unfinished files are removed. A training replaces this
reaction by its own: it writes a checkpoint first (`training/checkpoint.py`).

Standard library only.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator

from rankwise.core import process_names, settings

VARIABLE = "RANKWISE_PLANNER"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOOK_EVERY_S = 1.0
TERMINATED = 128 + signal.SIGTERM  # how a shell reports a process that SIGTERM ended


def begin(parent: int | None = None) -> None:
    """Tie this process to its parent and to the planner of its job.

    Args:
        parent: The number of the parent process. If not given, it is not known, and only the
            planner is looked at.

    Raises:
        SystemExit: The parent or the planner has ended already.
    """
    signal.signal(signal.SIGTERM, _end)
    end_with_parent()
    if parent is not None and os.getppid() != parent:
        sys.exit(TERMINATED)
    if planner_is_gone():
        sys.exit(TERMINATED)


def end_with_parent() -> None:
    """Ask for SIGTERM when the parent process is gone, however it ended; only Linux has that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def planner_is_gone() -> bool:
    """Whether the process that planned this job has ended. A planner on another machine has not."""
    name = settings.read(VARIABLE)
    return bool(name) and process_names.is_alive(name) is False


def check_planner() -> None:
    """Refuse to write a result that nobody waits for.

    Raises:
        SystemExit: The process that planned this job has ended.
    """
    if planner_is_gone():
        print(
            f"Snakemake ({settings.read(VARIABLE)}) has ended, so this job writes no result; "
            "run snakemake again",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(TERMINATED)


@contextlib.contextmanager
def ending_with_planner() -> Iterator[None]:
    """End this process within a second of its planner's end, whatever it does in the block."""

    def look(_number: int, _frame: object) -> None:
        if planner_is_gone():
            os._exit(TERMINATED)

    previous = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_EVERY_S, LOOK_EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def leave(status: int) -> None:
    """End this process now if a signal ended its job: threads that still run are not waited for."""
    if status < 128:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _end(_number: int, _frame: object) -> None:
    # A second signal would interrupt the removal of unfinished files.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TERMINATED)
