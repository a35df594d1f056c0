"""The processes of a clone, found by the environment variable that all of them inherit."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from faults.clone import MARK

ROLES = ("trainer", "caller", "server", "snakemake")
PAUSE_S = 0.05


class Process(NamedTuple):
    """A living process of a clone.

    Attributes:
        pid: Its number.
        role: One of ROLES, or `job` for a job that no server has forked, or `other`.
        log: The file that its standard output goes to: a job and its caller share one.
    """

    pid: int
    role: str
    log: str


def of_clone(root: Path) -> list[Process]:
    """All living processes of a clone; those that have ended and were not waited for are left out."""
    mark = f"{MARK}={root}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # a process may end while it is looked at
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                is_in_clone = (folder / "cwd").resolve() == root
                log = os.readlink(folder / "fd/1")  # noqa: PTH115 - it may be a pipe
                found.append(Process(int(folder.name), role(words, is_in_clone), log))
    return found


def role(words: list[bytes], is_in_clone: bool) -> str:
    """What a process does.

    A job that the server has forked has the server's command line, but works in the clone.

    Args:
        words: Its command line.
        is_in_clone: Whether its working directory is the clone's folder.
    """
    if b"rankwise.execution.worker_server" in words:
        return "trainer" if is_in_clone else "server"
    if b"rankwise.execution.worker_client" in words:
        return "caller"
    if b"rankwise.execution.script" in words:
        return "job"
    if any(word.endswith(b"/snakemake") for word in words[:2]):
        return "snakemake"
    return "other"


def kill(victims: list[Process]) -> None:
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)


def orphans(root: Path, among: Callable[[Process], bool], seconds: float) -> list[Process]:
    """Wait for processes to end.

    An idle server is no orphan: it serves the next run, and ends by itself.

    Args:
        root: The clone.
        among: Which processes are meant.
        seconds: How long to wait.

    Returns:
        Those that still live then.
    """
    return left(root, lambda one: one.role != "server" and among(one), seconds)


def left(root: Path, among: Callable[[Process], bool], seconds: float) -> list[Process]:
    """As `orphans`, with servers."""
    end = time.monotonic() + seconds
    while True:
        living = [one for one in of_clone(root) if among(one)]
        if not living or time.monotonic() > end:
            return living
        time.sleep(PAUSE_S)
