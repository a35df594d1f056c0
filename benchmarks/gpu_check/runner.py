"""Run a part in a process of its own, and receive its rows until it ends or its time is over."""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

DONE, FAILED, STOPPED = "done", "failed", "stopped"
POLL_S = 1.0


class Settings(NamedTuple):
    """What all parts share.

    Attributes:
        rehearse: Run on the CPU, with tiny models.
        logs: Folder of what each part prints.
        scratch: Folder for files that go with the check.
        start_method: Of processes: `fork` or `spawn`.
    """

    rehearse: bool
    logs: Path
    scratch: Path
    start_method: str = "fork"


class Ending(NamedTuple):
    """How a part ended.

    Attributes:
        status: DONE, FAILED or STOPPED.
        reason: Why, if it is not DONE.
    """

    status: str
    reason: str = ""


class Check:
    """What a part gets.

    Args:
        settings: Shared by all parts.
        seconds: Until the part is killed.
        send: Takes the rows.

    Attributes:
        rehearse: Whether this is a rehearsal.
        device: `cuda`, or `cpu` in a rehearsal.
        scratch: Folder for files that go with the check.
    """

    def __init__(self, settings: Settings, seconds: float, send: Callable[[dict], None]):
        self.rehearse, self.scratch = settings.rehearse, settings.scratch
        self.device = "cpu" if settings.rehearse else "cuda"
        self._ends_at = time.monotonic() + seconds
        self._send = send

    def seconds_left(self) -> float:
        """Until the part is killed."""
        return self._ends_at - time.monotonic()

    def row(self, **values: object) -> None:
        """Send one row of the report."""
        self._send(values)

    def attempt(self, labels: dict, measure: Callable[[], dict]) -> dict:
        """Send a row with what `measure` returns, or with the reason why it failed.

        Args:
            labels: The first columns of the row.
            measure: Returns the other columns.

        Returns:
            The row.
        """
        start = time.monotonic()
        try:
            values = measure()
        except Exception as error:  # a case that fails is a row, and the next one goes on
            traceback.print_exc()
            values = {"reason": described(error)}
        row = {**labels, **values, "took_s": round(time.monotonic() - start, 2)}
        self._send(row)
        return row


def described(error: BaseException) -> str:
    """An error in one line, with the place in which it was raised."""
    lines = str(error).strip().splitlines() or [""]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {lines[0][:300]}{place}"


def run_part(
    module: str, settings: Settings, seconds: float, add: Callable[[dict], None]
) -> Ending:
    """Run a part, and call `add` with each of its rows as it comes.

    Args:
        module: Dotted name; it has `run(check)`.
        settings: Shared by all parts.
        seconds: After so many, the part is killed with all that it has started.
        add: Takes the rows.
    """
    context = multiprocessing.get_context(settings.start_method)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, module, settings, seconds))
    process.start()
    theirs.close()  # so that the end of the process is the end of its rows
    ends_at = time.monotonic() + seconds
    ending = None
    try:
        ending = _received(ours, ends_at, add)
    finally:
        if ending is None or ending.status == STOPPED:
            _kill(process)
        process.join()
        ours.close()
    if ending.status == STOPPED:
        return Ending(STOPPED, f"its {seconds:.0f} s were over")
    if ending.status == DONE and process.exitcode:
        return Ending(FAILED, f"its process ended with status {process.exitcode}")
    return ending


def _received(rows: Connection, ends_at: float, add: Callable[[dict], None]) -> Ending:
    """Pass rows on until the process ends; its last message may say why it failed."""
    while (left := ends_at - time.monotonic()) > 0:
        if not rows.poll(min(left, POLL_S)):
            continue
        try:
            kind, value = rows.recv()
        except EOFError:
            return Ending(DONE)
        if kind == FAILED:
            return Ending(FAILED, value)
        add(value)
    return Ending(STOPPED)


def _kill(process: BaseProcess) -> None:
    """Kill the process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet, or is gone
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _work(rows: Connection, module: str, settings: Settings, seconds: float) -> None:
    """What the process of a part does."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / f"{module.rpartition('.')[2]}.log"
    stream = log.open("w", encoding="utf-8", buffering=1)
    for number in (1, 2):
        os.dup2(stream.fileno(), number)
    sys.stdout = sys.stderr = stream  # whatever a caller has put in their place
    if settings.start_method == "spawn":
        importlib.import_module("benchmarks.gpu_check.standins").install()
    check = Check(settings, seconds, lambda row: rows.send(("row", row)))
    try:
        importlib.import_module(module).run(check)
    except BaseException as error:
        traceback.print_exc()
        rows.send((FAILED, described(error)))
    finally:
        rows.close()
        stream.flush()
