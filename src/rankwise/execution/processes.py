"""Several processes for one job: each runs the job's library call, and one result comes back.

The job's process forks one process for each GPU, or for each share of the cores, and waits. It has
loaded the libraries already and has not used them: it has started neither CUDA nor threads of
torch. The processes find each other by a file (`RANKWISE_RENDEZVOUS`), so two jobs of a machine
never want the same port.

A stop signal goes on to every process; they agree among themselves on the update at which they
stop. When a process fails, the others wait for it in vain, so they are ended after GRACE_S. None of
them outlives the job's process.

Standard library only.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from rankwise.core import progress, settings
from rankwise.execution import lifeline

STOPPED = 128 + signal.SIGTERM  # of a process that was told to stop, and has kept what it can
GRACE_S = 10  # from the first failure of a process to SIGKILL of those that still run
LOOPBACK = "lo"  # the network interface within a Linux machine; a hostname may not resolve


def together(call: Callable[[], dict], count: int, cpu_threads: int, on_gpu: bool) -> dict:
    """Run `call` in several processes at once.

    Args:
        call: The library call. The environment variables of torch's launchers (`RANK`,
            `WORLD_SIZE`, ...) tell it which process it is in.
        count: How many processes there are.
        cpu_threads: Threads of torch in each.
        on_gpu: Whether each takes a GPU of its own.

    Returns:
        What the first process's call returns; or the first result with a `status` other than ok.

    Raises:
        SystemExit: A process failed. The status is that of a process that was told to stop; else
            the exit says in one sentence which process ended, and how.
    """
    if on_gpu:
        _check_gpus(count)
    with tempfile.TemporaryDirectory(prefix="rankwise-") as name, progress.handed_over():
        folder = Path(name)
        context = multiprocessing.get_context("fork")
        processes: list[BaseProcess] = []
        with _stops_sent_to(processes) as stops:
            for index in range(count):
                arguments = (call, index, count, cpu_threads, folder, os.getpid())
                process = context.Process(target=_work, args=arguments)
                process.start()
                processes.append(process)
                if stops:  # it came while the process was forked
                    process.terminate()
            try:
                first_failed = _wait(processes, folder)
            finally:
                _end(processes)
        return _answer(processes, folder, first_failed, bool(stops))


def _check_gpus(count: int) -> None:
    """Refuse to start when the job was given fewer GPUs than it has processes."""
    visible = settings.given("CUDA_VISIBLE_DEVICES")
    names = [name for name in (visible or "").split(",") if name.strip()]
    if visible is not None and len(names) < count:
        sys.exit(
            f"CUDA_VISIBLE_DEVICES: got {len(names)} GPUs, allowed: at least {count}, one for each "
            "of the schedule's processes"
        )


# One of the processes -----------------------------------------------------------------------------


def _work(
    call: Callable[[], dict], index: int, count: int, cpu_threads: int, folder: Path, job: int
) -> None:
    """Run the call as one of the processes, and write what it returns."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    lifeline.begin(parent=job)
    progress.take_over(reports=index == 0)
    if index:  # the log has one writer; errors of all processes are in it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["RANKWISE_RENDEZVOUS"] = str(folder / "rendezvous")
    os.environ["OMP_NUM_THREADS"] = str(cpu_threads)  # else accelerate sets threads of its own
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    content = call()
    partial = folder / f"{index}.partial"
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(_file(folder, index))


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index}.json"


# The process that waits ---------------------------------------------------------------------------


@contextlib.contextmanager
def _stops_sent_to(processes: list[BaseProcess]) -> Iterator[list[int]]:
    """Pass stop signals on to the processes; yields the signals that have come."""
    stops: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        stops.append(number)
        for process in processes:
            if process.exitcode is None:
                process.terminate()

    previous = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stops
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(processes: list[BaseProcess], folder: Path) -> int | None:
    """Wait until all processes have ended, or GRACE_S after the first that failed.

    Returns:
        The number of the first process that failed; None if none did.
    """
    running = {process.sentinel: index for index, process in enumerate(processes)}
    first_failed, until = None, None
    while running:
        left_s = None if until is None else max(0.0, until - time.monotonic())
        for sentinel in connection.wait(list(running), left_s):
            index = running.pop(sentinel)
            processes[index].join()
            if first_failed is None and _has_failed(processes[index], _file(folder, index)):
                first_failed, until = index, time.monotonic() + GRACE_S
        if until is not None and time.monotonic() >= until:
            break
    return first_failed


def _has_failed(process: BaseProcess, file: Path) -> bool:
    """Whether an ended process has no result, or one that says that the run has failed."""
    if process.exitcode:
        return True
    return json.loads(file.read_text(encoding="utf-8")).get("status", "ok") != "ok"


def _end(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()  # does nothing to a process that has ended
        process.join()


def _answer(
    processes: list[BaseProcess], folder: Path, first_failed: int | None, was_told_to_stop: bool
) -> dict:
    """The result of the job; see `together`."""
    # A failure in one process makes the others fail in their own ways. One with a result says why.
    failed = [] if first_failed is None else [first_failed, *range(len(processes))]
    for index in failed or [0]:
        file = _file(folder, index)
        if file.is_file() and (not failed or _has_failed(processes[index], file)):
            return json.loads(file.read_text(encoding="utf-8"))
    code = processes[first_failed].exitcode
    if was_told_to_stop or code == STOPPED:
        raise SystemExit(code if code > 0 else 128 - code)
    how = f"exit status {code}" if code > 0 else signal.Signals(-code).name
    hint = "; the system sends it when host memory runs out" if -code == signal.SIGKILL else ""
    sys.exit(
        f"process {first_failed} of {len(processes)} ended with {how}{hint}; "
        "the others cannot go on without it and were ended"
    )
