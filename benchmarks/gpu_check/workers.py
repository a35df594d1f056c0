"""Training processes that a part forks, each with a GPU context of its own.

The part itself must not have started CUDA: a fork could not use it.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.01


class Worker(NamedTuple):
    """A process that was started, and where its answer comes from."""

    process: BaseProcess
    answers: Connection


def start(work: Callable[..., object], *arguments: object) -> Worker:
    """Start `work(*arguments)` in a fork.

    Args:
        work: Returns what can be pickled.
        *arguments: Of `work`.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    return Worker(process, ours)


def answer(worker: Worker, seconds: float) -> object:
    """Wait for what the work of a process returns.

    Raises:
        RuntimeError: It failed, ended without an answer, or took too long.
    """
    try:
        if not worker.answers.poll(max(seconds, 0)):
            raise RuntimeError(f"a training gave no answer within {seconds:.0f} s")
        is_good, value = worker.answers.recv()
    except EOFError:
        worker.process.join()
        status = worker.process.exitcode
        raise RuntimeError(f"a training ended with status {status} and no answer") from None
    finally:
        end(worker)
    if not is_good:
        raise RuntimeError(value)
    return value


def end(worker: Worker) -> None:
    """Kill the process, if it has not ended in a moment, and forget it."""
    worker.process.join(1)
    worker.process.kill()
    worker.process.join()
    worker.answers.close()


def interrupted(worker: Worker, marker: Path, number: signal.Signals, seconds: float) -> int:
    """Send a signal to a process once it has written a marker, and wait for its end.

    Returns:
        The exit status of the process: negative for a signal that killed it.

    Raises:
        RuntimeError: It ended, or took too long, before the marker was there.
    """
    ends_at = time.monotonic() + seconds
    while not marker.exists():
        if not worker.process.is_alive() or time.monotonic() > ends_at:
            end(worker)
            raise RuntimeError("a training ended, or took too long, before it was interrupted")
        time.sleep(POLL_S)
    os.kill(worker.process.pid, number)
    worker.process.join(max(ends_at - time.monotonic(), 0))
    status = worker.process.exitcode
    end(worker)
    if status is None:
        raise RuntimeError(f"a training did not end after {number.name}")
    return status


def _answer(answers: Connection, work: Callable[..., object], arguments: tuple) -> None:
    try:
        value = (True, work(*arguments))
    except Exception as error:
        traceback.print_exc()
        value = (False, f"{type(error).__name__}: {error}")
    answers.send(value)
