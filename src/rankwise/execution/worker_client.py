"""Run a script of the workflow in a process that has imported torch already.

    python -m rankwise.execution.worker_client [--gpu N] [--gpu-memory-gib X] NAME ARGUMENTS

Most jobs are short: importing torch and transformers takes longer than their work. So the first
job starts a server (`worker_server`), which imports those libraries and nothing of this project,
and waits at a Unix socket. Each job is a fork of that server. It runs the script as
`python SCRIPT` would, with the arguments, environment, folder and standard streams of this
process, the client.

If the client exits or receives SIGTERM, the server sends SIGTERM to the job, and training writes a
checkpoint. The client in turn is stopped with Snakemake, whose child it is, because the rules use
`exec`. If anything fails before the job has started, the script runs in the client itself.
RANKWISE_WARM=0 switches the server off, and so does a system without pidfd (Linux has it).

With `--gpu N` the job holds a lease on N whole GPUs before it starts; with `--gpu-memory-gib X` on
X GiB of one (`gpu_lease`). The job inherits the locks of its lease, so that a GPU is free when
the job has ended, not when the client has. The environment variables that name the GPU are set
for the job alone: the server uses no GPU and never initializes CUDA.

Standard library only.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rankwise.core import paths, requests, settings

if TYPE_CHECKING:
    from rankwise.execution.gpu_lease import Lease

# CUDA does not survive a fork, and bitsandbytes initializes it when it is imported. So jobs that use
# bitsandbytes on a GPU run in the client.
NO_CUDA, NO_CARD = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}, {"CUDA_VISIBLE_DEVICES": ""}
CARDS = ("--gpu", "--gpu-memory-gib")
# A job that exits with this status ran out of its share of a GPU: it runs again, alone on one.
RUN_ALONE = 75
BITS = "bitsandbytes"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Environment variables that do not change how libraries load, so a server serves any values of them.
PASSING = ("_", "PWD", "OLDPWD", "SHLVL", "PYTEST_CURRENT_TEST")


def main(arguments: list[str]) -> int:
    """The exit status of the script."""
    end_with_parent()
    cards: dict[str, float] = {}
    while arguments[0] in CARDS:
        name, value, *arguments = arguments
        cards[name] = float(value)
    lease = leased(cards) if any(cards.values()) else None
    status = attempt(arguments, lease)
    if lease:
        lease.release()
    if lease and lease.shared and status == RUN_ALONE:
        sys.stdout.flush()
        os.execv(
            sys.executable,
            [sys.executable, "-m", "rankwise.execution.worker_client", "--gpu", "1", *arguments],
        )
    return status


def end_with_parent() -> None:
    """Be told to stop when whoever started this process is gone, however that ended; only Linux does that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def leased(cards: dict[str, float]) -> "Lease | None":
    """A lease, waited for.

    Raises:
        SystemExit: this machine cannot give it; the sentence that says why.
    """
    from rankwise.execution.gpu_lease import take  # noqa: PLC0415 - most jobs take no card

    whole, memory_gib = (cards.get(name, 0) for name in CARDS)
    try:
        return take(int(whole), memory_gib)
    except ValueError as error:
        sys.exit(str(error))


def attempt(arguments: list[str], lease: "Lease | None") -> int:
    """The exit status of the script, run by the server or here."""
    bits, cards = asks_for_bits(arguments), lease.environment if lease else {}
    if settings.read("RANKWISE_WARM") != "0" and has_pidfd() and not (lease and bits):
        status = ask(arguments, bits, {**os.environ, **cards}, lease.fds if lease else [])
        if status is not None:
            return status
    os.environ.update(cards)
    return run(arguments, bits)


def has_pidfd() -> bool:
    """Whether this system tells by a file when a process has ended; some sandboxes' kernels do not."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def asks_for_bits(arguments: list[str]) -> bool:
    """Whether a source of the job imports bitsandbytes.

    peft imports it wherever it is installed, which takes seconds. So it is hidden from all other
    jobs.
    """
    text = arguments[arguments.index("--request") + 1]
    request = requests.read(Path(text[1:])) if text.startswith("@") else json.loads(text)
    for name in request["code"]:
        path = paths.module_file(name)
        if path and f"import {BITS}" in path.read_text(encoding="utf-8"):
            return True
    return False


def run(arguments: list[str], bits: bool) -> int:
    """Run the script in this process, as Python would."""
    if not bits:
        sys.modules.setdefault(BITS, None)
    for name in [name for name in sys.modules if name.split(".")[0] == "rankwise"]:
        del sys.modules[name]  # the script reads this project's sources as they are now
    # The path is absolute, since processes that the script spawns look for it from another folder.
    script = paths.script(arguments[0])
    sys.argv, sys.path[0] = [str(script), *arguments[1:]], str(script.parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


# The caller -----------------------------------------------------------------------------------------------------------


def ask(
    arguments: list[str], bits: bool, environment: dict[str, str], locks: list[int]
) -> int | None:
    """The exit status of the script, run by the server with these locks; None if it has not started there."""
    try:
        link = connect(bits)
        task = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
        socket.send_fds(link, [b"."], [0, 1, 2, *locks])
        link.sendall(json.dumps(task).encode() + b"\n")
        answers = link.makefile("r", encoding="utf-8")
        if answers.readline() != "started\n":
            return None
    except OSError:
        return None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hang_up(link))
    return int(answers.readline() or 1)  # nothing: the server was killed, and the job with it


def hang_up(link: socket.socket) -> None:
    """Have the job told to stop; how it ends is still waited for."""
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_WR)


def connect(bits: bool) -> socket.socket:
    """A link to the server, which is started if there is none."""
    place = address(bits)
    with Path(f"{place}.lock").open("w", encoding="utf-8") as lock:  # two callers start one server
        fcntl.flock(lock, fcntl.LOCK_EX)
        link = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            link.connect(place)
            return link
        Path(place).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place)
        listener.listen(1024)
        command = [
            sys.executable,
            "-m",
            "rankwise.execution.worker_server",
            str(listener.fileno()),
            str(int(bits)),
            place,
        ]
        quiet = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        own = {**os.environ, **NO_CUDA, **(NO_CARD if bits else {})}
        subprocess.Popen(
            command, pass_fds=[listener.fileno()], start_new_session=True, cwd="/", env=own, **quiet
        )
        link.connect(place)
        return link


def address(bits: bool) -> str:
    """The socket for this interpreter, these packages and this environment, in a folder of this user's alone."""
    folder = Path(tempfile.gettempdir()) / f"rankwise-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    packages = Path(sysconfig.get_path("purelib"))
    shared = {name: value for name, value in os.environ.items() if name not in PASSING}
    known = [sys.executable, packages.stat().st_mtime_ns, bits, sorted(shared.items())]
    return str(folder / hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
