"""Another user of the machine: `nobody`. Only root can become it."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
BECOME_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

needs_root = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv") or not shutil.which("flock"),
    reason="only root can become another user, with setpriv and flock of util-linux",
)


def let_others_enter(folder: Path) -> None:
    """Let every user pass through a folder of pytest's, which belongs to root alone."""
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


def run_as_nobody(*command: object) -> None:
    """Run a command as nobody, to its end."""
    subprocess.run([*BECOME_NOBODY, *map(str, command)], check=True)


@contextmanager
def locking_as_nobody(path: Path, hides: bool = False) -> Iterator[subprocess.Popen]:
    """Let nobody lock a file, once it is free, until the context is left.

    Args:
        path: The file.
        hides: Whether the process that took the lock ends, and leaves it to another.

    Yields:
        The process; unless it hides, it has the lock.
    """
    holding = 'exec flock -o "$1" sh -c "echo locked; exec sleep 1000"'
    inheriting = 'exec 9<"$1"; flock 9; echo locked; exec sleep 1000'
    script = inheriting if hides else holding
    command = [*BECOME_NOBODY, "sh", "-c", script, "sh", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until_locked(process: subprocess.Popen) -> None:
    assert process.stdout.readline() == "locked\n"


@contextmanager
def locked_by_nobody(path: Path) -> Iterator[subprocess.Popen]:
    """Let nobody keep a file locked until the context is left."""
    with locking_as_nobody(path) as process:
        wait_until_locked(process)
        yield process


def call_as_nobody(function: Callable[[], object]) -> str:
    """What a function gives or raises, as text, in a fork that is nobody."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                answer = str(function())
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(write_end, answer.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return answer
