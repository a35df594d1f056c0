"""A real SLURM on this machine, with nodes, accounting and preemption.

It runs as root (tests/slurm/up.sh). Debian's packages of SLURM are installed if they are missing.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.repository import ROOT

PACKAGES = [
    "slurm-wlm",
    "slurmctld",
    "slurmd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurmdbd",
    "munge",
    "mariadb-server",
]
PROGRAMS = ["slurmctld", "slurmd", "sinfo", "slurmdbd", "munged", "mariadbd"]


def install() -> str | None:
    """Install the packages of SLURM. Return why that failed, or None."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    update = ["apt-get", "update", "-qq"]
    install_packages = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    for command in (update, install_packages):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(command[:2])}: {done.stderr[-500:]}"
    return None


def is_running(program: str) -> bool:
    done = subprocess.run(["pgrep", "-x", program], capture_output=True, check=False)
    return done.returncode == 0


def why_no_cluster() -> str | None:
    """Why no cluster can run here, or None. Installs missing packages."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    if not all(map(shutil.which, PROGRAMS)):
        failure = install()
        if failure:
            return failure
    conf = Path("/etc/slurm/slurm.conf")
    if conf.is_symlink() and not is_running("slurmctld"):
        conf.unlink()  # left by an earlier test that was killed
    return f"{conf} is there: this machine has a cluster of its own" if conf.exists() else None


@contextlib.contextmanager
def running_cluster() -> Iterator[Path]:
    """The folder of a running cluster.

    Its partitions are main, urgent (which preempts) and plain (one node, down, without a GPU).
    """
    why = why_no_cluster()
    if why:
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(why)
    # A temporary folder has a short path. Paths of sockets, which the folder holds, are limited.
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    try:
        command = [ROOT / "tests/slurm/up.sh", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder
    finally:
        subprocess.run([ROOT / "tests/slurm/down.sh", folder], timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def shell(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def running() -> list[tuple[str, str, str]]:
    """(id, node, comment) of every job that has run for at least four seconds.

    The comment comes from Snakemake's executor and names the rule or group.
    """
    lines = shell("squeue", "-h", "-t", "RUNNING", "-p", "main", "-o", "%M|%i|%N|%k").splitlines()
    too_short = ("0:00", "0:01", "0:02", "0:03")
    return [tuple(line.split("|", 3)[1:]) for line in lines if not line.startswith(too_short)]


def resume(node: str) -> None:
    """Let a node take jobs again. That fails, without effect, if the node already does."""
    command = ["scontrol", "update", f"nodename={node}", "state=resume"]
    subprocess.run(command, capture_output=True, timeout=30, check=False)


def accounts(*options: str) -> list[dict[str, str]]:
    """The rows of SLURM's accounting.

    Each job has one. With `--duplicates`, a requeued job has one for each time that it ran.
    """
    names = ["JobID", "State", "ReqTRES", "AllocTRES"]
    names += ["TimelimitRaw", "Account", "Partition", "Comment"]
    lines = shell("sacct", "-X", "-n", "-P", "-o", ",".join(names), *options).splitlines()
    return [dict(zip(names, line.split("|"), strict=True)) for line in lines]


def job_ids() -> set[str]:
    return set(shell("squeue", "-h", "-t", "all", "-o", "%i").split())
