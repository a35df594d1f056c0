"""Ask a machine with a time limit: run a command, or call functions, that may never answer.

A broken driver, daemon or network disk often hangs instead of failing, and must not hang its
caller. Every command that Rankwise runs with a time limit is run by `run`. Nothing here raises.

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

COMMAND_S = 10  # a command is killed after so many seconds
ALL_S = 40  # functions asked together have so many seconds
KILLED_S = 1  # how long a killed command is waited for
ABSENT = "is not found here"


class Answer(NamedTuple):
    """The output of a command."""

    printed: str  # also of a command that failed: some print half of the answer
    trouble: str | None = None  # what went wrong: "says: ...", "gives no answer in 10 s"
    hangs: bool = False


# Commands -----------------------------------------------------------------------------------------


def run(*command: str, seconds: float = COMMAND_S) -> Answer:
    """Run a command and return what it prints.

    Args:
        command: The program and its arguments.
        seconds: When to kill the command and everything that it has started.
    """
    if shutil.which(command[0]) is None:
        return Answer("", ABSENT)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # its own process group, so that `_kill` reaches its children
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
    return Answer(printed, _failure(process.returncode, errors.strip() or printed.strip()))


def _failure(status: int, message: str) -> str:
    """Why a command failed: the last line of its message, or its exit status if it printed none."""
    if not message:
        return f"ends with {status}"
    return f"says: {message.splitlines()[-1].strip()}"


def _kill(process: subprocess.Popen) -> None:
    """Kill a command's process group.

    A process that waits for a broken device dies only when the device answers, so it is not waited
    for long.
    """
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=KILLED_S)


def no_answer(seconds: float) -> str:
    """The trouble of anything that hangs."""
    return f"gives no answer in {seconds:g} s"


# Functions ----------------------------------------------------------------------------------------


def ask(questions: dict[str, Callable[[], dict]], seconds: float = ALL_S) -> dict[str, dict]:
    """Call functions at the same time and return the facts that each one finds.

    Args:
        questions: Name -> a function that returns facts about this machine.
        seconds: How long to wait for all of them together.

    Returns:
        Name -> facts; `{"trouble": reason}` for a function that raised or did not return in time.
    """
    facts: dict[str, dict] = {}
    threads = []
    for name, question in questions.items():
        # A thread that hangs cannot be stopped. As a daemon it ends with the process.
        thread = threading.Thread(target=_answer, args=(facts, name, question), daemon=True)
        thread.start()
        threads.append(thread)
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    return {name: facts.get(name, {"trouble": no_answer(seconds)}) for name in questions}


def _answer(facts: dict[str, dict], name: str, question: Callable[[], dict]) -> None:
    try:
        facts[name] = question()
    except Exception as error:  # whatever is wrong with this machine is a fact about it
        facts[name] = {"trouble": str(error) or type(error).__name__}
