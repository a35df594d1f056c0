"""Questions to a machine that may never be answered: a command, or a function, with a limit of time. Nothing here raises.

A driver, a daemon or a network disk that is broken often hangs instead of failing, and who asks must not hang with it.
Standard library only.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

COMMAND_S, ALL_S = 10, 40
ABSENT = "is not found here"


class Answer(NamedTuple):
    """What a command printed, or why it printed nothing."""

    printed: str  # of a command that fails: all the same, some say half of it
    trouble: str | None = None
    hangs: bool = False


def run(*command: str, seconds: float = COMMAND_S) -> Answer:
    """What a command prints; after `seconds` it is killed, with all that it has started."""
    if shutil.which(command[0]) is None:
        return Answer("", ABSENT)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        process = subprocess.Popen(
            command, **quiet, text=True, errors="replace", start_new_session=True
        )
    except OSError as error:
        return Answer("", f"cannot be started ({error.strerror})")
    try:
        printed, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        return Answer("", no_answer(seconds), hangs=True)
    if process.returncode == 0:
        return Answer(printed)
    said = (errors.strip() or printed.strip()).splitlines()
    return Answer(
        printed, f"says: {said[-1].strip()}" if said else f"ends with {process.returncode}"
    )


def _kill(process: subprocess.Popen) -> None:
    """A process that waits for a broken device dies only when the device answers, so it is not waited for long."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=1)


def no_answer(seconds: float) -> str:
    """What is said of anything that hangs."""
    return f"gives no answer in {seconds:g} s"


def ask(questions: dict[str, Callable[[], dict]], seconds: float = ALL_S) -> dict[str, dict]:
    """Name -> the facts that each function finds, all asked at once; `trouble` has why one found none.

    Threads that hang are left behind: they end with the process.
    """
    found: dict[str, dict] = {}
    threads = [
        threading.Thread(target=_answer, args=(found, *question), daemon=True)
        for question in questions.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    return {name: found.get(name, {"trouble": no_answer(seconds)}) for name in questions}


def _answer(found: dict[str, dict], name: str, question: Callable[[], dict]) -> None:
    try:
        found[name] = question()
    except Exception as error:  # whatever is wrong with this machine is a fact about it
        found[name] = {"trouble": str(error) or type(error).__name__}
