"""`rankwise plan`: which jobs Snakemake would run now, why, and what they will cost.

Snakemake itself says which jobs (`--summary`), because it decides. The reasons come from the
results: each holds the request that it answers, and the differences from the planned request are
the reasons. The cost of a job is the time of earlier runs of the same cell, or else of the same
curve, or else of the same measurement. A training run that has none of these costs its predicted
FLOPs at the rates of `execution/job_memory.py`, if it has been predicted. Standard library only.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rankwise.audit.request_differences import differences
from rankwise.core import paths, provenance, result
from rankwise.execution import job_memory
from rankwise.study.jobs import PlannedJob, input_jobs, requested_jobs
from rankwise.study.plan import DEFAULT_STUDY, Plan, read_plan

MADE_FROM_PENDING = "made from what runs"
RESUMES = "resumes from its checkpoint"


def plan(root: Path, study: str | None = None) -> dict:
    """What `snakemake` would run now in the clone at `root`.

    Args:
        root: The project's folder.
        study: The study's file, relative to `root`; config/config.yaml if None.

    Returns:
        `study`: its file; `planned`: how many results it has; `jobs`: those that would run, with
        their reasons (`why`); `cost`: their total.

    Raises:
        ConfigError: the study is wrong.
        ValueError: Snakemake refuses the workflow; the message is Snakemake's.
    """
    # Snakemake reads the study at the same time as this process.
    summary = _start_summary(root, paths.find(root, study or DEFAULT_STUDY))
    planned = read_plan(root, study)
    jobs_by_path = study_jobs(planned)
    pending, pending_jobs = [], []
    for files, status in _pending(summary):
        job = jobs_by_path.get(files[0])
        pending.append(_described(files, status, job, planned))
        if job:
            pending_jobs.append(job)
    return {
        "study": planned.file,
        "planned": len(jobs_by_path),
        "jobs": pending,
        "cost": cost(planned, pending_jobs, jobs_by_path.values()),
    }


def study_jobs(plan: Plan) -> dict[str, PlannedJob]:
    """Path -> job of every result that a study asks for, and of the inputs that training reads."""
    listed = [*requested_jobs(plan), *input_jobs(plan)]
    return {job.path: job for job in listed}


def stored(path: Path) -> dict:
    """The result at `path`; an empty one if there is none, or only part of a file."""
    try:
        return result.read(path)
    except (FileNotFoundError, ValueError):
        return {}


# What Snakemake says ------------------------------------------------------------------------------


def _start_summary(root: Path, file: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--summary", "--configfile", str(file)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe, text=True)


def _pending(summary: subprocess.Popen) -> list[tuple[list[str], str]]:
    """What Snakemake would make, from its summary.

    Returns:
        (files, Snakemake's status) of each; files that differ in their ending alone come from one
        job.

    Raises:
        ValueError: Snakemake refuses the workflow; the message is Snakemake's.
    """
    printed, errors = summary.communicate()
    if summary.returncode:
        raise ValueError(errors.strip() or printed.strip())
    head, *rows = [line.split("\t") for line in printed.splitlines()]
    path_column, status_column = head.index("output_file"), head.index("status")
    update_column = head.index("plan")
    pending: dict[str, tuple[list[str], str]] = {}
    for row in rows:
        if row[update_column] == "no update":
            continue
        path = row[path_column]
        files, _ = pending.setdefault(path.rpartition(".")[0], ([], row[status_column]))
        files.append(path)
    return list(pending.values())


def _described(files: list[str], status: str, job: PlannedJob | None, plan: Plan) -> dict:
    """A job that would run, and why."""
    # To Snakemake a file is `ok` if only what it is made from is pending.
    word = MADE_FROM_PENDING if status == "ok" else status
    if job is None:
        # Tables and figures hold no request, so Snakemake's status is all that is known of them.
        path = Path(files[0])
        in_folder = path.parent.name in ("tables", "figures")
        kind = path.parent.name.rstrip("s") if in_folder else path.stem
        return {"job": kind, "name": path.stem, "files": files, "why": [word]}
    return {"job": job.kind, "name": job.name, "files": files, "why": _reasons(job, word, plan)}


def _reasons(job: PlannedJob, word: str, plan: Plan) -> list[str]:
    """Why the result of a job is pending; `word` is Snakemake's status."""
    found = stored(plan.root / job.path)
    reasons = ["not there yet"]
    if found:
        reasons = differences(found["request"], job.request) or [word]
    checkpoint = paths.checkpoint(provenance.digest(job.request))
    if (plan.root / checkpoint).is_file():
        reasons.append(RESUMES)
    return reasons


# Cost ---------------------------------------------------------------------------------------------


def cost(plan: Plan, pending: list[PlannedJob], known: Iterable[PlannedJob]) -> dict:
    """The cost of the `pending` jobs, from the times that results of `known` jobs record.

    Returns:
        `hours` of all jobs; `gpu_hours` of those that take a GPU; `peak_bytes`: the largest
        predicted peak of a training run; `disk_gib` as the study says; `unknown`: how many jobs
        have neither a recorded nor a predicted time.
    """
    recorded = _recorded_times(plan, known)
    total_s, gpu_s, peak_bytes, unknown = 0.0, 0.0, 0, 0
    for job in pending:
        if job.trains:
            peak_bytes = max(peak_bytes, job_memory.prediction(plan, job.cell).get("peak_bytes", 0))
        seconds = _seconds(plan, job, recorded.get(job.kind, []))
        if seconds is None:
            unknown += 1
            continue
        total_s += seconds
        if needs_gpu(plan, job):
            gpu_s += seconds
    return {
        "hours": total_s / 3600,
        "gpu_hours": gpu_s / 3600,
        "peak_bytes": peak_bytes,
        "disk_gib": plan.study["disk_gib"],
        "unknown": unknown,
    }


def needs_gpu(plan: Plan, job: PlannedJob) -> bool:
    """Whether a job takes a GPU. What prepares an input never does."""
    return job.measures_cell and plan.needs_gpu(job.kind, job.cell)


def _recorded_times(
    plan: Plan, known: Iterable[PlannedJob]
) -> dict[str, list[tuple[PlannedJob, float]]]:
    """Kind of job -> the jobs that have a result, with the seconds that each took."""
    recorded: dict[str, list[tuple[PlannedJob, float]]] = {}
    for job in known:
        seconds = stored(plan.root / job.path).get("environment", {}).get("job_time_s")
        if seconds:
            recorded.setdefault(job.kind, []).append((job, seconds))
    return recorded


def _seconds(plan: Plan, job: PlannedJob, recorded: list[tuple[PlannedJob, float]]) -> float | None:
    """Expected seconds of a job; None if nothing tells.

    From earlier runs of the same cell, or else of its curve; or else from a prediction; or else the
    median over all `recorded` jobs of its kind.
    """
    of_cell = [seconds for other, seconds in recorded if other.name == job.name]
    if of_cell:
        return statistics.median(of_cell)
    if job.cell:
        curve = job.cell.curve
        of_curve = [
            seconds for other, seconds in recorded if other.cell and other.cell.curve == curve
        ]
        if of_curve:
            return statistics.median(of_curve)
    if job.trains:
        predicted = job_memory.predicted_s(plan, job_memory.prediction(plan, job.cell))
        if predicted:
            return predicted
    return statistics.median([seconds for _, seconds in recorded]) if recorded else None
