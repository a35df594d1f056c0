"""A run of a study through SLURM, and the misfortunes that strike its jobs and nodes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from helpers.repository import CLEAN
from helpers.slurm_cluster import resume, running, shell

# Options that fit a small cluster: two CPUs a node, a local disk, and jobs that take seconds.
HERE = ["--cores", "2", "--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2"]


class Submitted:
    """A run through SLURM: its clone and log, and the misfortunes that struck it."""

    def __init__(self, root: Path):
        self.root = root
        self.log = root / "snakemake.log"
        self.job_by_misfortune: dict[str, str] = {}  # name of a misfortune -> id of the job struck
        self.preempted_log: Path | None = None  # of the training run that was preempted
        self.torch_at_login = False  # whether Snakemake's own process loaded torch
        self.status: int | None = None  # Snakemake's exit status

    def start(self, cluster: Path, study: str, *arguments: str) -> subprocess.Popen:
        """Start Snakemake as on a login node.

        All processes that it starts, on any node, have TEST_CLUSTER in their environment.
        """
        snakemake = str(Path(sys.executable).with_name("snakemake"))
        command = [snakemake, "--configfile", study, *HERE, *arguments]
        environment = {**CLEAN, "TEST_CLUSTER": str(cluster)}
        with self.log.open("w") as log:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def cancel(run: Submitted, job: str, node: str) -> None:
    shell("scancel", job)


def payload(job: str) -> tuple[int, Path]:
    """The Python process that does a job's work, and the file that it will write.

    Raises:
        LookupError: The job has not started its script yet.
    """
    variable = f"SLURM_JOB_ID={job}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end, or be one that cannot be read.
        with contextlib.suppress(OSError):
            is_of_job = variable in (process / "environ").read_bytes().split(b"\0")
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if is_of_job and "--request" in words:
                return int(process.name), Path(words[words.index("--output") + 1])
    raise LookupError("the job has not started its script yet")


def kill_payload(run: Submitted, job: str, node: str) -> None:
    """Send SIGKILL, as the kernel does when memory runs out."""
    process, _ = payload(job)
    os.kill(process, signal.SIGKILL)


def preempt(run: Submitted, job: str, node: str) -> None:
    """Preempt a training run by an urgent job.

    Raises:
        LookupError: The run has not been evaluated twice yet, so it would have little to resume.
    """
    _, output = payload(job)
    digest = output.parent.relative_to("results/demo/runs")
    log = run.root / "logs/demo/train" / digest.with_suffix(".log")
    if not log.is_file() or log.read_text().count("\nepoch") < 2:
        raise LookupError("the run has not been evaluated twice yet")
    where = ["-p", "urgent", "-w", node, "--exclusive"]
    shell("sbatch", *where, "-t", "1", "-o", "/dev/null", "--wrap", "sleep 2")
    run.preempted_log = log


def lose(run: Submitted, job: str, node: str) -> None:
    """Take the node down and bring it back."""
    shell("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    time.sleep(1)
    resume(node)


def drain(run: Submitted, job: str, node: str) -> None:
    """Make the node take no more jobs until this one has ended."""
    shell("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")


# (name, a part of the comment of the jobs that it may strike, how to do it)
MISFORTUNES: list[tuple[str, str, Callable[[Submitted, str, str], None]]] = [
    ("drained", "cpu_tiny", drain),
    ("lost", "cpu_distilbert", lose),
    ("preempted", "rule_train", preempt),
    ("killed", "rule_train", kill_payload),
    ("cancelled", "rule_train", cancel),
]


def strike(run: Submitted) -> None:
    """Make the first misfortune that is still to come and finds a running job to strike.

    A job is struck only once. Jobs on a draining node are spared. When the job on it has ended,
    the node is opened again.
    """
    struck = run.job_by_misfortune
    jobs = running()
    drained_job = struck.get("drained")
    draining_nodes = [node for job, node, _ in jobs if job == drained_job]
    if drained_job and not draining_nodes:
        for node in ("n1", "n2"):
            resume(node)
    candidates = [
        job for job in jobs if job[1] not in draining_nodes and job[0] not in struck.values()
    ]
    for name, part, act in MISFORTUNES:
        if name in struck:
            continue
        for job, node, comment in candidates:
            if part in comment:
                with contextlib.suppress(LookupError):
                    act(run, job, node)
                    struck[name] = job
                    return
