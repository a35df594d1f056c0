"""The base of every measured time: device, synchronised clock, quartiles, fresh processes.

All times of one process share its memory layout and its choice of kernels, so repeats within it
spread less than the machine does. Samples therefore come from several fresh processes, one after
the other, and are pooled.
"""

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from rankwise.core import provenance
from rankwise.core.errors import Unsupported
from rankwise.core.kernels import kernels
from rankwise.execution import lifeline

PROCESSES = 2
Rehearse = Callable[[dict], None]
Measure = Callable[[dict], dict]


def ready(request: dict) -> str:
    """Seed torch's generators, set its threads and return the request's device.

    Raises:
        RuntimeError: The device is not there.
    """
    device = request["device"]
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "profile.N.device: got cuda, allowed on this machine: cpu, because torch finds no GPU"
        )
    torch.set_num_threads(request["cpu_threads"])
    torch.manual_seed(0)
    return device


class Clock:
    """Measures laps. Each lap ends when the device has finished its work.

    CUDA kernels run asynchronously: without synchronising, only their launch would be timed.
    """

    def __init__(self, device: str):
        self.device, self._last = device, 0.0
        self.lap()

    def lap(self) -> float:
        """Seconds since the lap before."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def repeats(once_s: float, aim_s: float, least: int, most: int) -> int:
    """How often to repeat something, so that all repeats together take about a given time.

    Args:
        once_s: Seconds that it takes once.
        aim_s: Seconds that all repeats together should take.
        least: The smallest number to return.
        most: The largest number to return.
    """
    return min(max(int(aim_s / max(once_s, 1e-9)), least), most)


def spread(quantity: str, seconds: list[float]) -> dict[str, float]:
    """Median and quartiles of a measured time.

    Args:
        quantity: What the columns are named after.
        seconds: At least two samples.

    Returns:
        `{quantity}_q1_s`, `{quantity}_s` (the median) and `{quantity}_q3_s`, in seconds.
    """
    low, median, high = statistics.quantiles(seconds, n=4)
    return {f"{quantity}_q1_s": low, f"{quantity}_s": median, f"{quantity}_q3_s": high}


def in_processes(rehearse: Rehearse, measure: Measure, request: dict, processes: int) -> list[dict]:
    """Run `measure(request)` in several fresh processes, one after the other.

    Args:
        rehearse: Loads all that measuring needs but no weights. All processes rehearse at the same
            time, before the first one measures, because importing takes longer than measuring.
        measure: Like `rehearse` a function at the top of a module, because it is pickled.
        request: A profile's request.
        processes: How many; 1 runs in this process.

    Returns:
        What `measure` returned in each process.

    Raises:
        RuntimeError: A process ended without an answer; its own error is in the log.
    """
    if processes == 1:
        return [_run(measure, request)]
    started = [_start(rehearse, measure, request) for _ in range(processes)]
    for process, pipe in started:
        _answer(process, pipe)  # it is ready
    return [_measured(process, pipe) for process, pipe in started]


def _run(measure: Measure, request: dict) -> dict:
    """Measure with the kernels of the study's trainings; a refusal is a result with its reason."""
    try:
        with kernels(request):
            return measure(request)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}


def _start(rehearse: Rehearse, measure: Measure, request: dict) -> tuple[BaseProcess, Connection]:
    spawn = multiprocessing.get_context("spawn")  # CUDA cannot be used in a forked process
    ours, theirs = spawn.Pipe()
    arguments = (theirs, rehearse, measure, request, os.getpid())
    process = spawn.Process(target=_work, args=arguments, daemon=True)
    process.start()
    theirs.close()  # so that `recv` raises EOFError when the process ends
    return process, ours


def _measured(process: BaseProcess, pipe: Connection) -> dict:
    pipe.send("measure")
    result = _answer(process, pipe)
    process.join()
    return result


def _answer(process: BaseProcess, pipe: Connection) -> dict:
    try:
        return pipe.recv()
    except EOFError:
        process.join()  # for its exit code
        raise RuntimeError(
            f"a measuring process ended without an answer, exit code {process.exitcode}"
        ) from None


def _work(pipe: Connection, rehearse: Rehearse, measure: Measure, request: dict, job: int) -> None:
    """The main function of a measuring process. It ends with its job, the process number `job`."""
    lifeline.begin(parent=job)
    rehearse(request)
    pipe.send("ready")
    pipe.recv()
    result = _run(measure, request)
    _verify(request)
    pipe.send(result)


def _verify(request: dict) -> None:
    """Verify the sources of this process, as a job verifies its own.

    The job itself has not imported the modules that this process has. A process that no job
    started, as in a test, has nothing to verify.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and f"{provenance.SCRIPT_DIR}/{Path(script).name}" in request["code"]:
        provenance.verify(request["code"], Path(script))
