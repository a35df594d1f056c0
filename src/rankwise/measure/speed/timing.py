"""What every measured time shares: a device that is there, a synchronised clock, quartiles, fresh processes.

Times of one process share its memory layout and its choice of kernels, so repeats within it spread less than the machine does:
samples come from several fresh processes, one after the other, and are pooled.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from rankwise.core import provenance

PROCESSES = 2
Measured = Callable[[dict], dict]


def ready(request: dict) -> str:
    """The device of a profile's request; seeds torch's generators and sets its threads.

    Raises:
        RuntimeError: the device is not there.
    """
    device = request["device"]
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "profile.N.device: got cuda, allowed on this machine: cpu, for torch finds no GPU here"
        )
    torch.set_num_threads(request["cpu_threads"])
    torch.manual_seed(0)
    return device


class Clock:
    """Seconds between laps, each taken when the device has done what it was given."""

    def __init__(self, device: str):
        self.device, self.last = device, 0.0
        self.lap()

    def lap(self) -> float:
        """Seconds since the lap before."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        before, self.last = self.last, time.perf_counter()
        return self.last - before


def repeats(once_s: float, aim_s: float, least: int, most: int) -> int:
    """How often to repeat what takes `once_s`, so that all of it takes about `aim_s`."""
    return min(max(int(aim_s / max(once_s, 1e-9)), least), most)


def spread(quantity: str, seconds: list[float]) -> dict[str, float]:
    """`{quantity}_q1_s`, `{quantity}_s` (the median) and `{quantity}_q3_s`, of at least two samples."""
    low, median, high = statistics.quantiles(seconds, n=4)
    return {f"{quantity}_q1_s": low, f"{quantity}_s": median, f"{quantity}_q3_s": high}


def out_of_memory(error: torch.OutOfMemoryError) -> dict[str, str]:
    """What a result says of it: status, and the first line of torch's reason."""
    return {"status": "out_of_memory", "reason": str(error).partition("\n")[0]}


def in_processes(
    rehearse: Measured, measure: Measured, request: dict, processes: int
) -> list[dict]:
    """What `measure(request)` returns in each of so many fresh processes; 1 is this one. Both are modules' own functions.

    `rehearse(request)` loads what measuring needs, and no weights: all do it together, before the first one measures.

    Raises:
        RuntimeError: a process ended without an answer; its own error is in the log.
    """
    if processes == 1:
        return [measure(request)]
    started = [_start(rehearse, measure, request) for _ in range(processes)]
    for one in started:
        _answer(*one)
    return [_measured(*one) for one in started]


def _start(*task: object) -> tuple[BaseProcess, Connection]:
    spawn = multiprocessing.get_context("spawn")  # a forked process has no CUDA
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(theirs, *task), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _measured(process: BaseProcess, pipe: Connection) -> dict:
    pipe.send("measure")
    found = _answer(process, pipe)
    process.join()
    return found


def _answer(process: BaseProcess, pipe: Connection) -> dict:
    try:
        return pipe.recv()
    except EOFError:
        process.join()  # for its exit code
        raise RuntimeError(
            f"a measuring process ended without an answer, exit code {process.exitcode}"
        ) from None


def _work(pipe: Connection, rehearse: Measured, measure: Measured, request: dict) -> None:
    rehearse(request)
    pipe.send("ready")
    pipe.recv()
    found = measure(request)
    _verify(request)
    pipe.send(found)


def _verify(request: dict) -> None:
    """As a job does itself: it has not loaded what this process has. A process of no job has nothing to verify."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and f"{provenance.SCRIPT_DIR}/{Path(script).name}" in request["code"]:
        provenance.verify(request["code"], Path(script))
