"""The server of `worker_client`: a process that has imported libraries; its forks are the jobs.

If a client hangs up or is gone, the server sends SIGTERM to its job, and SIGKILL if the job has
not ended after GRACE_S seconds. The server ends after IDLE_S seconds without work, and sooner after
a client has hung up, because then Snakemake was stopped. It ignores SIGTERM, because SLURM signals
the server together with its jobs, which may be writing checkpoints. If the server is killed, its
jobs get SIGTERM (`lifeline`).

Standard library only.
"""

import contextlib
import gc
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

from rankwise.execution import lifeline
from rankwise.execution.worker_client import BITS, DOCUMENTS, TORCH, TORCH_AND_BITS, run
from rankwise.execution.worker_folder import peer_is_this_user

IDLE_S = 8  # without work, before the server ends
STOPPED_IDLE_S = 1  # the same, after a client has hung up
CLIENT_TIMEOUT_S = 60  # for a client to say what its job is
GRACE_S = 120  # between SIGTERM and SIGKILL
KIB = 1024
MAX_FILES = 64  # that a client may pass on
HIGHEST_FILE = 1024
FOR_TORCH = (
    "torch",
    "transformers.modeling_utils",
    "transformers.masking_utils",
    "peft",
    "accelerate",
    "datasets",
)
LIBRARIES = {
    TORCH: FOR_TORCH,
    TORCH_AND_BITS: (*FOR_TORCH, BITS),
    DOCUMENTS: (
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_pdf",
        "matplotlib.backends.backend_svg",
        "pandas",
        "pyarrow.parquet",
        "scipy.stats",
        "jsonschema",
        "yaml",
    ),
}


@dataclass
class Job:
    """A fork, and the client that waits for it."""

    pid: int
    client: socket.socket
    kill_at: float | None = None  # when SIGKILL is due; set once the client has hung up


def serve(listener: socket.socket, libraries: str, address: str) -> None:
    """Import the libraries, then fork a job for each client, until no work has come for a while.

    Args:
        listener: The socket that clients connect to.
        libraries: What to import: a key of LIBRARIES.
        address: The path of the socket.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if libraries != TORCH_AND_BITS:
        sys.modules[BITS] = None
    with lifeline.ending_with_planner():
        load(libraries)
    jobs: dict[int, Job] = {}  # by pidfd, which becomes readable when the job has ended
    idle_s = IDLE_S
    while True:
        # A client sends nothing after its task. Its socket becomes readable when it hangs up.
        clients = {job.client.fileno(): job for job in jobs.values() if job.kill_at is None}
        ready, _, _ = select.select([listener, *jobs, *clients], [], [], pause_s(jobs, idle_s))
        if not ready and not jobs:
            Path(address).unlink(missing_ok=True)
            return
        for source in ready:
            if source is listener:
                idle_s = IDLE_S
                start(listener, jobs, libraries)
            elif source in jobs:
                finish(jobs.pop(source), source)
            elif clients[source] in jobs.values():
                clients[source].kill_at = time.monotonic() + GRACE_S
                idle_s = STOPPED_IDLE_S
                send(clients[source], signal.SIGTERM)
        kill_overdue(jobs)


def load(libraries: str) -> None:
    """Import what jobs import, and take it out of the garbage collector's sight.

    A collection looks at every object: a million of the libraries' alone, in a third of a second,
    and a ledger collects before each of its measurements. A frozen object is not looked at, so
    that the memory pages it lies on stay shared between the forks as well.

    Args:
        libraries: A key of LIBRARIES.
    """
    for name in LIBRARIES[libraries]:
        importlib.import_module(name)
    if "peft" in LIBRARIES[libraries]:
        # It compiles hundreds of patterns when it first wraps a model; transformers keeps them.
        conversions = importlib.import_module("transformers.conversion_mapping")
        conversions.get_checkpoint_conversion_mapping("bert")
    gc.collect()
    gc.freeze()


def kill_overdue(jobs: dict[int, Job]) -> None:
    """Kill the jobs that have not ended in time after SIGTERM."""
    for job in jobs.values():
        if job.kill_at is not None and job.kill_at <= time.monotonic():
            job.kill_at = float("inf")
            send(job, signal.SIGKILL)


def pause_s(jobs: dict[int, Job], idle_s: float) -> float | None:
    """Seconds until there is something to do even if nobody comes; None: never."""
    if not jobs:
        return idle_s
    due = [job.kill_at for job in jobs.values() if job.kill_at not in (None, float("inf"))]
    return max(0.0, min(due) - time.monotonic()) if due else None


def send(job: Job, number: signal.Signals) -> None:
    """Send a signal to a job and to every process that it has started."""
    with contextlib.suppress(ProcessLookupError):  # it may have ended by now
        os.killpg(job.pid, number)


def start(listener: socket.socket, jobs: dict[int, Job], libraries: str) -> None:
    """Fork the job of the next client."""
    client, _ = listener.accept()
    if not peer_is_this_user(client):
        client.close()
        return
    try:
        client.settimeout(CLIENT_TIMEOUT_S)
        _, files, _, _ = socket.recv_fds(client, 1, MAX_FILES)
        task = json.loads(client.makefile("r", encoding="utf-8").readline())
    except (OSError, ValueError):
        client.close()
        return
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        work(task, files, libraries, server)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):
        client.sendall(f"started {pid}\n".encode())
    jobs[os.pidfd_open(pid)] = Job(pid, client)


def work(task: dict, files: list[int], libraries: str, server: int) -> None:
    """In the fork: become the client's process, run the script, and exit.

    Args:
        task: The script's arguments, environment and folder.
        files: Descriptors of the client's standard streams, and of locks, which stay open for as
            long as the job lives.
        libraries: What this process has imported.
        server: The process number of the server.
    """
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, stream in enumerate(files[:3]):
        os.dup2(stream, number)
    kept = [2, *sorted(files[3:]), HIGHEST_FILE]
    for low, high in itertools.pairwise(kept):
        os.closerange(low + 1, high)
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["environment"])
    status = run(task["arguments"], libraries, server)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def finish(job: Job, pidfd: int) -> None:
    """Tell the client how its job ended, and its peak of resident memory in bytes.

    The status is 128 and the signal's number if a signal killed it.
    """
    _, status, used = os.wait4(job.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    answer = f"{code if code >= 0 else 128 - code} {used.ru_maxrss * KIB}\n"
    with contextlib.suppress(OSError):
        job.client.sendall(answer.encode())
    job.client.close()
    os.close(pidfd)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3])
