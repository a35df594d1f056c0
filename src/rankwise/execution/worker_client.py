"""Run a script of the workflow in a process that has imported its libraries already.

    python -m rankwise.execution.worker_client [--gpu N] [--gpu-memory-gib X] NAME ARGUMENTS
    python -m rankwise.execution.worker_client --documents NAME ARGUMENTS

Most jobs are short: importing torch and transformers takes longer than their work. So the first
job starts a server (`worker_server`), which imports those libraries and nothing of this project,
and waits at a Unix socket. Jobs that make documents (tables, figures and pages) have a server of
their own, which imports pandas and matplotlib in place of torch. Each job is a fork of a server.
It runs the script as `python SCRIPT` would, with the arguments, environment, folder and standard
streams of this process, the client.

If the client exits or receives SIGTERM, the server sends SIGTERM to the job, and training writes a
checkpoint. The client in turn is stopped with Snakemake, whose child it is, because the rules use
`exec`. If the server is killed, its jobs get SIGTERM, and the client waits until its job has ended.
If anything fails before the job has started, the script runs in the client itself.
RANKWISE_WARM=0 switches the server off, and so does a system without pidfd (Linux has it).

With `--gpu N` the job holds a lease on N whole GPUs before it starts; with `--gpu-memory-gib X` on
X GiB of one (`gpu_lease`). The job inherits the locks of its lease, so that a GPU is free when
the job has ended, not when the client has. The environment variables that name the GPU are set
for the job alone: the server uses no GPU and never initializes CUDA.

Standard library only.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rankwise.core import kills, paths, plugins, requests, settings
from rankwise.execution import lifeline
from rankwise.execution.worker_folder import UnsafeFolder, peer_is_this_user, worker_folder

if TYPE_CHECKING:
    from rankwise.execution.gpu_lease import Lease

# CUDA does not survive a fork, and bitsandbytes initializes CUDA when it is imported. So jobs that
# use bitsandbytes on a GPU run in the client.
NO_CUDA, NO_GPU = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}, {"CUDA_VISIBLE_DEVICES": ""}
GPU_OPTIONS = ("--gpu", "--gpu-memory-gib")
# A job that exits with this status ran out of its share of a GPU: it runs again, alone on one.
RUN_ALONE = 75
BITS = "bitsandbytes"
# What a server has imported: a key of `worker_server.LIBRARIES`.
TORCH, TORCH_AND_BITS, DOCUMENTS = "torch", "torch and bitsandbytes", "documents"
IMPORTS_BITS = re.compile(rb"^\s*(import|from) bitsandbytes\b", re.MULTILINE)
# Environment variables that do not change how libraries load: a server serves any values of them.
PASSING = ("_", "PWD", "OLDPWD", "SHLVL", "PYTEST_CURRENT_TEST", lifeline.VARIABLE)
ENDING_S = 120  # for a job whose server was killed to end after SIGTERM


def main(arguments: list[str]) -> int:
    """Run a script, with a lease on GPUs if it takes any.

    Returns:
        The exit status of the script.
    """
    lifeline.begin()
    oom_kills = kills.counts()
    if arguments[0] == "--documents":
        ended = run_warm_or_here(arguments[1:], DOCUMENTS)
        say_signal(ended, oom_kills)
        return ended.status
    gpus: dict[str, float] = {}
    while arguments[0] in GPU_OPTIONS:
        name, value, *arguments = arguments
        gpus[name] = float(value)
    lease = wait_for_lease(gpus) if any(gpus.values()) else None
    libraries = TORCH_AND_BITS if uses_bitsandbytes(arguments) else TORCH
    ended = run_warm_or_here(arguments, libraries, lease)
    status = ended.status
    say_signal(ended, oom_kills)
    if lease:
        lease.release()
    if lease and lease.shared and status == RUN_ALONE:
        sys.stdout.flush()
        client = [sys.executable, "-m", "rankwise.execution.worker_client"]
        os.execv(sys.executable, [*client, "--gpu", "1", *arguments])
    return status


class Ended(NamedTuple):
    """How a job ended.

    Attributes:
        status: Its exit status: 128 and the number of a signal, as in a shell.
        pid: Its process number.
        peak_bytes: The peak of its resident memory, if it is known.
        server_is_gone: Its server was killed, and the job with it.
    """

    status: int
    pid: int
    peak_bytes: int | None = None
    server_is_gone: bool = False


def say_signal(ended: Ended, oom_kills: dict[str, int]) -> None:
    """Write to the log that a signal ended the job, which could not say so itself.

    Args:
        ended: How the job ended.
        oom_kills: `kills.counts()` when it began.
    """
    if ended.status - 128 not in set(signal.Signals):
        return
    number = signal.Signals(ended.status - 128)
    line = f"ended by {number.name}"
    if number == signal.SIGKILL:
        line = kills.sentence(kills.SIGKILL_SEEN, ended.pid, ended.peak_bytes, oom_kills)
    if ended.server_is_gone:
        line += "; it ended the process that this job was a fork of"
    print(line, file=sys.stderr, flush=True)


def wait_for_lease(gpus: dict[str, float]) -> "Lease | None":
    """Wait for a lease.

    Args:
        gpus: The values of GPU_OPTIONS that were given.

    Raises:
        SystemExit: This machine cannot give such a lease; the sentence says why.
    """
    from rankwise.execution.gpu_lease import take  # noqa: PLC0415 - most jobs take no GPU

    whole, memory_gib = (gpus.get(name, 0) for name in GPU_OPTIONS)
    try:
        return take(int(whole), memory_gib)
    except ValueError as error:
        sys.exit(str(error))


def run_warm_or_here(arguments: list[str], libraries: str, lease: "Lease | None" = None) -> Ended:
    """Run a script in a fork of the server, or else in this process."""
    gpu_variables = lease.environment if lease else {}
    locks = lease.fds if lease else []
    is_warm = settings.read("RANKWISE_WARM") != "0" and has_pidfd()
    if is_warm and not (lease and libraries == TORCH_AND_BITS):
        ended = run_in_server(arguments, libraries, {**os.environ, **gpu_variables}, locks)
        if ended is not None:
            return ended
    os.environ.update(gpu_variables)
    tell("importing libraries")
    return Ended(run(arguments, libraries), os.getpid())


def tell(text: str) -> None:
    """Say in the job's log why nothing happens yet."""
    print(f"rankwise: {text}", file=sys.stderr, flush=True)


def has_pidfd() -> bool:
    """Whether the system has pidfd, by which the server sees a job end; some sandboxes lack it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def uses_bitsandbytes(arguments: list[str]) -> bool:
    """Whether a source of the job imports bitsandbytes.

    peft imports it wherever it is installed, which takes seconds. So it is hidden from all other
    jobs.
    """
    text = arguments[arguments.index("--request") + 1]
    request = requests.read(Path(text[1:])) if text.startswith("@") else json.loads(text)
    method = request.get("method", {})
    named = (method.get("module", ""), method.get("optimizer", {}).get("module", ""))
    if any(module.startswith((f"{BITS}.", f"{BITS}:")) for module in named):
        return True
    for name in request["code"]:
        path = paths.module_file(name)
        if path and plugins.has_source(path) and IMPORTS_BITS.search(path.read_bytes()):
            return True
    return False


def run(arguments: list[str], libraries: str, server: int | None = None) -> int:
    """Run a script in this process, as Python would.

    Args:
        arguments: The name of the script and its arguments.
        libraries: What a server for this job imports; without bitsandbytes it is hidden.
        server: The process number of the server, if this process is a fork of it.

    Returns:
        The exit status.
    """
    if libraries != TORCH_AND_BITS:
        sys.modules.setdefault(BITS, None)
    for name in list(sys.modules):
        if name.split(".")[0] == "rankwise":
            del sys.modules[name]  # the script reads this project's sources as they are now
    # The path is absolute, since processes that the script spawns look for it from another folder.
    script = paths.script(arguments[0])
    sys.argv, sys.path[0] = [str(script), *arguments[1:]], str(script.parent)
    try:
        if server is not None:
            lifeline.begin(parent=server)
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


# The client's side of the connection --------------------------------------------------------------


def run_in_server(
    arguments: list[str], libraries: str, environment: dict[str, str], locks: list[int]
) -> Ended | None:
    """Run a script in a fork of the server.

    Args:
        arguments: The name of the script and its arguments.
        libraries: What the server has imported.
        environment: The job's environment variables.
        locks: File descriptors of the lease's locks, which the job inherits.

    Returns:
        How it ended, or None if it has not started there.
    """
    try:
        connection = connect(libraries)
        task = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
        socket.send_fds(connection, [b"."], [0, 1, 2, *locks])
        connection.sendall(json.dumps(task).encode() + b"\n")
        answers = connection.makefile("r", encoding="utf-8")
        started, _, pid = answers.readline().partition(" ")
        if started != "started":
            return None
    except OSError as error:
        tell(f"this job runs without a worker process: {error}")
        return None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hang_up(connection))
    with contextlib.suppress(ConnectionError):
        answer = answers.readline().split()
        if answer:
            status, peak_bytes = map(int, answer)
            return Ended(status, int(pid), peak_bytes)
    wait_for_end(int(pid))
    return Ended(128 + signal.SIGKILL, int(pid), server_is_gone=True)


def wait_for_end(pid: int) -> None:
    """Wait until a job has ended whose server was killed; the system has sent it SIGTERM.

    The job may still write a checkpoint. Snakemake may start it again as soon as this client ends.
    """
    tell("the process that this job is a fork of was killed; waiting for the job to end")
    with contextlib.suppress(ProcessLookupError):
        ending = os.pidfd_open(pid)
        if not select.select([ending], [], [], ENDING_S)[0]:
            os.kill(pid, signal.SIGKILL)
            select.select([ending], [], [])


def hang_up(connection: socket.socket) -> None:
    """Tell the server to stop the job. The client still waits for the exit status."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def connect(libraries: str) -> socket.socket:
    """Connect to the server, which is started if there is none."""
    address = server_address(libraries)
    # The lock lets two clients that come at once start one server.
    lock_flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(f"{address}.lock", lock_flags, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            return connect_to_own(address)
        Path(address).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(1024)
        tell("importing libraries in a process that later jobs share")
        start_server(listener, libraries, address)
        return connect_to_own(address)


def connect_to_own(address: str) -> socket.socket:
    """Connect to a server of this user.

    Raises:
        OSError: Nobody answers, or another user does.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    if not peer_is_this_user(connection):
        connection.close()
        raise UnsafeFolder(f"another user answers at {address}; remove it or set TMPDIR")
    return connection


def start_server(listener: socket.socket, libraries: str, address: str) -> None:
    """Start a server that outlives this process and takes over its listening socket."""
    number = listener.fileno()
    module = [sys.executable, "-m", "rankwise.execution.worker_server"]
    subprocess.Popen(
        [*module, str(number), libraries, address],
        pass_fds=[number],
        start_new_session=True,
        cwd="/",
        env={**os.environ, **NO_CUDA, **(NO_GPU if libraries == TORCH_AND_BITS else {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def server_address(libraries: str) -> str:
    """The path of the server's socket.

    There is one server for each set of libraries, interpreter, its packages and the environment
    variables. The folder
    belongs to this user alone.

    Raises:
        OSError: The folder cannot be made, or another user could reach it.
    """
    folder = worker_folder()
    packages = Path(sysconfig.get_path("purelib"))
    variables = {name: value for name, value in os.environ.items() if name not in PASSING}
    key = [sys.executable, packages.stat().st_mtime_ns, libraries, sorted(variables.items())]
    return str(folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16])


if __name__ == "__main__":
    lifeline.leave(main(sys.argv[1:]))
