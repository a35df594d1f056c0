"""The server of `worker_client`: a process that has imported torch, and whose forks are the jobs.

If a client hangs up or is gone, the server sends SIGTERM to its job, and SIGKILL if the job has
not ended after GRACE_S seconds. The server ends after IDLE_S seconds without work. It ignores
SIGTERM, because SLURM signals the server together with its jobs, which may be writing checkpoints.

Standard library only.
"""

import contextlib
import importlib
import itertools
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rankwise.execution.worker_client import BITS, run

IDLE_S, PATIENCE_S, GRACE_S, MOST_FILES = 10, 60, 120, 64
LIBRARIES = (
    "torch",
    "transformers.modeling_utils",
    "transformers.masking_utils",
    "peft",
    "accelerate",
)


@dataclass
class Job:
    """A fork, and the caller that waits for it."""

    pid: int
    caller: socket.socket
    until: float | None = None  # when it is killed, once its caller has hung up


def serve(listener: socket.socket, bits: bool, place: str) -> None:
    """Import the libraries, then fork a job for each caller until there has been nothing to do for a while."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not bits:
        sys.modules[BITS] = None
    for name in (*LIBRARIES, *([BITS] if bits else [])):
        importlib.import_module(name)
    jobs: dict[int, Job] = {}  # by pidfd
    while True:
        callers = {job.caller.fileno(): job for job in jobs.values() if job.until is None}
        ready, _, _ = select.select([listener, *jobs, *callers], [], [], pause(jobs))
        if not ready and not jobs:
            Path(place).unlink(missing_ok=True)
            return
        for one in ready:
            if one is listener:
                start(listener, jobs, bits)
            elif one in jobs:
                finish(jobs.pop(one), one)
            elif (
                callers[one] in jobs.values()
            ):  # a caller says nothing more, but that it has hung up
                callers[one].until = time.monotonic() + GRACE_S
                tell(callers[one], signal.SIGTERM)
        for job in jobs.values():
            if job.until is not None and job.until <= time.monotonic():
                job.until = float("inf")
                tell(job, signal.SIGKILL)


def pause(jobs: dict[int, Job]) -> float | None:
    """Seconds until there is something to do even if nobody comes; None: never."""
    if not jobs:
        return IDLE_S
    ends = [job.until for job in jobs.values() if job.until not in (None, float("inf"))]
    return max(0.0, min(ends) - time.monotonic()) if ends else None


def tell(job: Job, number: signal.Signals) -> None:
    """Send a signal to a job and what it has started."""
    with contextlib.suppress(ProcessLookupError):  # it may have ended by now
        os.killpg(job.pid, number)


def start(listener: socket.socket, jobs: dict[int, Job], bits: bool) -> None:
    """Fork the job of the next caller."""
    caller, _ = listener.accept()
    try:
        caller.settimeout(PATIENCE_S)
        _, files, _, _ = socket.recv_fds(caller, 1, MOST_FILES)
        task = json.loads(caller.makefile("r", encoding="utf-8").readline())
    except (OSError, ValueError):
        caller.close()
        return
    if (pid := os.fork()) == 0:
        work(task, files, bits)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):
        caller.sendall(b"started\n")
    jobs[os.pidfd_open(pid)] = Job(pid, caller)


def work(task: dict, files: list[int], bits: bool) -> None:
    """In the fork: become the caller's process, run the script, and leave. The first three files are its streams."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, stream in enumerate(files[:3]):
        os.dup2(stream, number)
    kept = [2, *sorted(files[3:]), 1024]  # locks, held for as long as the job lives
    for low, high in itertools.pairwise(kept):
        os.closerange(low + 1, high)
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["environment"])
    status = run(task["arguments"], bits)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def finish(job: Job, pidfd: int) -> None:
    """Tell the caller how its job ended; one that a signal has killed ends with 128 and the signal, as in a shell."""
    code = os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1])
    with contextlib.suppress(OSError):
        job.caller.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
    job.caller.close()
    os.close(pidfd)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2] == "1", sys.argv[3])
