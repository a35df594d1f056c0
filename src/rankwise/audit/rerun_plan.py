"""`rankwise plan`: which jobs Snakemake would run now, why, and what they will cost.

Snakemake itself says which jobs (`--summary`), because it decides. The reasons come from the
store: each result holds the request that it answers, and what differs between the planned request
and that of the most similar result of the same cell is the reason. The cost of a job is the time of
earlier runs of the same cell, or else of the same curve, or else of the same measurement. A
training run that has none of these costs its predicted FLOPs at the rates of
`execution/job_memory.py`, if it has been predicted. Standard library only.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rankwise.audit.leftovers import leftovers
from rankwise.audit.request_differences import differences
from rankwise.audit.unkept import unkept
from rankwise.core import documents, paths, result
from rankwise.core.store import Store
from rankwise.core.store_parts import DAMAGED
from rankwise.execution import job_memory
from rankwise.study.jobs import (
    FIGURE,
    PAGE,
    TABLE,
    TEXT,
    PlannedJob,
    input_jobs,
    planned_jobs,
    requested_jobs,
)
from rankwise.study.plan import DEFAULT_STUDY, Plan, read_plan

MADE_FROM_PENDING = "made from what runs"
NOT_THERE = "not there yet"
IN_STORE = "what it reads is made anew; its result is in the store, and nothing is computed"
DOCUMENTS = (TABLE, FIGURE, PAGE, TEXT)  # kinds of jobs that write no result
SET_ASIDE = "its result was not as it was written, and is set aside"
RESUMES = "resumes from its checkpoint"


def plan(root: Path, study: str | None = None) -> dict:
    """The jobs that `snakemake` would run now in the clone at `root`.

    Args:
        root: The project's folder.
        study: The study's file, relative to `root`; config/config.yaml if None.

    Returns:
        `study`: its file; `planned`: how many results it has; `jobs`: those that would run, with
        their reasons (`why`); `cost`: their total; `unkept`: the runs whose whole model is not
        kept; `leftovers`: files that the study no longer plans.

    Raises:
        ConfigError: the study is wrong.
        ValueError: Snakemake refuses the workflow; the message is Snakemake's.
    """
    # Snakemake reads the study at the same time as this process.
    summary = _start_summary(root, paths.find(root, study or DEFAULT_STUDY))
    planned = read_plan(root, study)
    jobs_by_path = {path: job for job in planned_jobs(planned) for path in job.outputs}
    store, pending, measured = Store(root), [], []
    for files, status in _pending(summary):
        job = jobs_by_path[files[0]]
        why = _reasons(job, status, planned, store)
        pending.append({"job": job.kind, "name": job.name, "files": files, "why": why})
        if job.kind in DOCUMENTS or why == [IN_STORE]:
            continue
        measured.append(job)
    known = study_jobs(planned)
    return {
        "study": planned.file,
        "planned": len(known),
        "jobs": pending,
        "cost": cost(planned, measured, known.values()),
        "unkept": unkept(planned),
        "leftovers": leftovers(planned),
    }


def study_jobs(plan: Plan) -> dict[str, PlannedJob]:
    """Path -> job of every result that a study asks for, and of the inputs that training reads."""
    listed = [*requested_jobs(plan), *input_jobs(plan)]
    return {job.path: job for job in listed}


def same_cell(job: PlannedJob, store: Store) -> list[Path]:
    """The files in the store of a job's kind and cell, for any request."""
    place = PurePosixPath(job.place)
    return store.find_all(str(place.parent.with_name("*") / place.name))


def of_same_cell(job: PlannedJob, store: Store) -> list[dict]:
    """The results in the store of a job's kind and cell, for any request."""
    results = []
    for file in same_cell(job, store):
        try:
            results.append(result.read(file))
        except (FileNotFoundError, ValueError):
            continue  # `rankwise store verify` names it
    return results


# What Snakemake says ------------------------------------------------------------------------------


def _start_summary(root: Path, file: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--summary", "--configfile", str(file)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe, text=True)


def _pending(summary: subprocess.Popen) -> list[tuple[list[str], str]]:
    """The files that Snakemake would make, from its summary.

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


def _reasons(job: PlannedJob, status: str, plan: Plan, store: Store) -> list[str]:
    """Why a job would run; `status` is Snakemake's word."""
    if job.kind in DOCUMENTS:
        return [_reason_of_document(job, status, plan)]
    if store.find(job.place):
        return [IN_STORE]
    others = [differences(found["request"], job.request) for found in of_same_cell(job, store)]
    reasons = min(others, key=len, default=[NOT_THERE])
    folder = PurePosixPath(job.place).parent
    if store.find_all(f"{folder.with_name(f'{folder.name}{DAMAGED}*')}"):
        reasons = [SET_ASIDE]
    if (plan.root / paths.checkpoint(job.digest)).is_file():
        reasons = [*reasons, RESUMES]
    return reasons


def _reason_of_document(job: PlannedJob, status: str, plan: Plan) -> str:
    """Why a table, a figure or a text would be made anew."""
    if status == "ok":  # only what it is made from is pending
        return MADE_FROM_PENDING
    if not all((plan.root / path).is_file() for path in job.outputs):
        return NOT_THERE
    made, wanted = documents.made(job.request, plan.root), documents.wanted(job.request, plan.root)
    if made.get("request") != wanted["request"]:
        return "its settings, its code or the list of what it shows changed"
    if made["inputs"] != wanted["inputs"]:
        return "the files that it is made from changed"
    if made.get("files") != wanted["files"]:
        return "it was edited"
    return status


# Cost ---------------------------------------------------------------------------------------------


def cost(plan: Plan, pending: list[PlannedJob], known: Iterable[PlannedJob]) -> dict:
    """The cost of the `pending` jobs, from the times that results of `known` jobs record.

    Returns:
        `hours`: wall-clock hours of all jobs, one after the other; `gpu_hours`: of those that take
        GPUs, times the GPUs that each takes; `peak_bytes`: the largest predicted peak of a training
        run; `disk_gib` as the study says; `unknown`: how many jobs have neither a recorded nor a
        predicted time.
    """
    recorded = _recorded_times(known, Store(plan.root))
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
            gpu_s += seconds * plan.processes(job.kind, job.cell)  # each process has its own GPU
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
    known: Iterable[PlannedJob], store: Store
) -> dict[str, list[tuple[PlannedJob, float]]]:
    """Kind of job -> its jobs with a result in the store, and the seconds that each took."""
    recorded: dict[str, list[tuple[PlannedJob, float]]] = {}
    for job in known:
        for found in of_same_cell(job, store):
            seconds = found.get("environment", {}).get("job_time_s")
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
