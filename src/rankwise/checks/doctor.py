"""`rankwise doctor`: what this machine can run, what a study needs, and what is missing, before
anything starts.

It looks at the jobs whose results do not exist yet. What is missing everywhere (files, the hub,
disk, packages) stops a cluster, too. What only this machine lacks does not, if SLURM answers.
Nothing here imports torch.
"""

from collections import Counter
from pathlib import Path

from rankwise.audit import rerun_plan
from rankwise.audit.rerun_plan import needs_gpu
from rankwise.checks import machine
from rankwise.checks import missing as missing_things
from rankwise.core import config, paths
from rankwise.core.store import Store
from rankwise.data import sources
from rankwise.execution import job_memory, slurm_nodes, slurm_request
from rankwise.study.jobs import DATASET, MODEL, PlannedJob
from rankwise.study.measurements import EVALUATE, TIMED
from rankwise.study.plan import DEFAULT_STUDY, Plan, read_plan

REPORT_LOCK, PROFILE = "envs/report.lock", "profiles/slurm/profile.yaml"
PROFILE_MINUTES = 60  # what the rules of profiles ask for (rules/profile.smk)


def examine(root: Path, study: str | None = None) -> dict:
    """The findings of `rankwise doctor`.

    Args:
        root: The project's folder.
        study: The study's file, relative to `root`; config/config.yaml if None.

    Returns:
        `machine`: facts; `needs` of the `study`; `missing`: each with what to `do` and whether only
        `here`; `notes`; `cluster`: what SLURM's partitions can run; `runs`: here, cluster or None;
        `command`: what starts the study.

    Raises:
        ConfigError: the study is wrong.
    """
    plan = read_plan(root, study)
    facts = machine.look(root)
    known = list(rerun_plan.study_jobs(plan).values())
    pending = waiting(plan, known)
    needs = needed(plan, known, pending)
    missing = missing_things.missing(plan, pending, facts, needs)
    cluster = partitions(plan, pending, facts) if missing else None
    runs = None
    if not missing:
        runs = "here"
    elif cluster and not cluster["problems"] and all(one["here"] for one in missing):
        runs = "cluster"
    return {
        "study": plan.file,
        "machine": facts,
        "needs": needs,
        "missing": missing,
        "notes": missing_things.notes(facts, needs),
        "cluster": cluster,
        "runs": runs,
        "command": _command(plan.file, runs),
    }


def _command(file: str, runs: str | None) -> str | None:
    """The command that starts the study where it runs."""
    if runs is None:
        return None
    words = ["snakemake"]
    if runs == "cluster":
        words.append("--profile profiles/slurm")
    if file != DEFAULT_STUDY:
        words.append(f"--configfile {file}")
    return " ".join(words)


# What would run -----------------------------------------------------------------------------------


def waiting(plan: Plan, known: list[PlannedJob]) -> list[PlannedJob]:
    """The jobs whose result is in no store.

    A prepared input is only waited for if a pending training run or evaluation reads it. It may be
    deleted once nothing does.
    """
    store = Store(plan.root)
    pending = [job for job in known if store.find(job.place) is None]
    read = _inputs_read(plan, pending)
    return [job for job in pending if not job.prepares_input or job.name in read[job.kind]]


def _inputs_read(plan: Plan, pending: list[PlannedJob]) -> dict[str, set[str]]:
    """Names of the models and datasets that pending runs, evaluations and pre-trainings read."""
    cells = [job.cell for job in pending if job.trains]
    models = {cell.model for cell in cells}
    datasets = {cell.dataset for cell in cells}
    for job in pending:
        if job.kind == EVALUATE:
            models.add(job.cell.model)
            datasets.add(plan.evaluations.cells[job.cell].get("dataset"))
    pending_models = {job.name for job in pending if job.kind == MODEL}
    for model in models & pending_models:
        datasets.add(plan.corpus(model))
    return {MODEL: models, DATASET: datasets}


# What it needs ------------------------------------------------------------------------------------


def needed(plan: Plan, known: list[PlannedJob], pending: list[PlannedJob]) -> dict:
    """The needs of the pending jobs, in the units of the names; None: not known.

    Args:
        plan: The study.
        known: The jobs of every result of the study.
        pending: Those of them that would run.
    """
    locks = dict.fromkeys([*(job.request["environment"]["lock"] for job in pending), REPORT_LOCK])
    cost = rerun_plan.cost(plan, pending, known)
    return {
        "results": len(known),
        "jobs": dict(Counter(job.kind for job in pending)),
        "gpu_jobs": sum(needs_gpu(plan, job) for job in pending),
        **_memory(plan, pending),
        "cpu_threads": plan.study["cpu_threads"],
        "disk_gib": plan.study["disk_gib"],
        **_origins(plan, pending),
        "locks": list(locks),
        "hours": cost["hours"],
        "gpu_hours": cost["gpu_hours"],
        "jobs_of_unknown_time": cost["unknown"],
    }


def _origins(plan: Plan, jobs: list[PlannedJob]) -> dict[str, dict[str, str]]:
    """Where the inputs to prepare come from: repositories of the `hub`, and `folders` of files."""
    hub, folders = {}, {}
    for job in jobs:
        if not job.prepares_input:
            continue
        name = _described(job)
        repository = sources.repository(job.kind, job.name, plan)
        if repository:
            hub[name] = f"{repository['repo']}@{repository['revision'][:12]}"
        folder = sources.folder(job.kind, job.name, plan)
        if folder:
            folders[name] = folder
    return {"hub": hub, "folders": folders}


def _memory(plan: Plan, jobs: list[PlannedJob]) -> dict:
    """The largest host memory of a job, and the largest predicted peak of a training run."""
    sizes = [(_memory_mib(plan, job), _described(job)) for job in jobs if job.measures_cell]
    trainings = [job for job in jobs if job.trains]
    peaks = []
    for job in trainings:
        peak = job_memory.prediction(plan, job.cell).get("peak_bytes")
        if peak is not None:
            peaks.append((peak, _described(job)))
    memory_mib, memory_of = max(sizes, default=(0, None))
    peak_bytes, peak_of = max(peaks, default=(None, None))
    return {
        "memory_mib": memory_mib,
        "memory_of": memory_of,
        "peak_bytes": peak_bytes,
        "peak_of": peak_of,
        "trainings_not_predicted": len(trainings) - len(peaks),
    }


def _described(job: PlannedJob) -> str:
    return f"{job.kind} {job.name}"


def _memory_mib(plan: Plan, job: PlannedJob) -> int:
    """The host memory that a job asks a scheduler for."""
    if job.trains:
        return job_memory.training_mib(plan, job.cell)
    if job.kind == EVALUATE:
        return job_memory.evaluation_mib(plan, job.cell)
    return job_memory.profile_mib(plan, job.kind, job.cell)


# Where else it could run --------------------------------------------------------------------------


def partitions(plan: Plan, pending: list[PlannedJob], facts: dict[str, dict]) -> dict | None:
    """What the cluster that this machine belongs to could run.

    Returns:
        `problems` with profiles/cluster.yaml as it is; names of the partitions that could run the
        jobs that take a GPU (`gpu`) and the others (`cpu`), or None if there are no such jobs. None
        if no cluster answers.
    """
    if "nodes" not in facts["slurm"]:
        return None
    nodes = [
        slurm_nodes.Node(**config.without(node, ("count",))) for node in facts["slurm"]["nodes"]
    ]
    try:
        settings = slurm_request.settings("gpus", plan.root)
    except config.ConfigError as error:
        return {"problems": [str(error)], "gpu": None, "cpu": None}
    asks = [_ask(plan, job, settings) for job in pending if job.measures_cell]
    with_gpu = [ask for ask in asks if ask.gpus]
    without_gpu = [ask for ask in asks if not ask.gpus]
    cores = config.read_yaml(paths.find(plan.root, PROFILE), PROFILE).get("cores")
    problems = slurm_request.options(settings, plan.file, plan.study["cpu_threads"], cores, None)
    return {
        "problems": [*problems, *slurm_nodes.problems(asks, nodes, plan.file)],
        "gpu": _able_partitions(with_gpu, nodes, plan.file),
        "cpu": _able_partitions(without_gpu, nodes, plan.file),
    }


def _able_partitions(
    asks: list[slurm_request.Ask], nodes: list[slurm_nodes.Node], file: str
) -> list[str] | None:
    """The partitions that could run all of these submissions; None if there are no submissions."""
    if not asks:
        return None
    able = []
    for partition in dict.fromkeys(node.partition for node in nodes):
        moved = [ask._replace(partition=partition) for ask in asks]
        if not slurm_nodes.problems(moved, nodes, file):
            able.append(partition)
    return able


def _ask(plan: Plan, job: PlannedJob, settings: dict) -> slurm_request.Ask:
    """The resources that profiles/slurm requests for a job."""
    uses_threads = job.trains or job.kind in (*TIMED, EVALUATE)
    runtime_min = PROFILE_MINUTES
    if job.trains:
        runtime_min = job_memory.training_min(plan, job.cell)
    elif job.kind == EVALUATE:
        runtime_min = job_memory.UNKNOWN_MIN
    resources = {
        **slurm_request.resources(settings, int(needs_gpu(plan, job))),
        "_cores": plan.study["cpu_threads"] if uses_threads else 1,
        "mem_mb": _memory_mib(plan, job),
        "runtime": runtime_min,
    }
    return slurm_request.ask(job.kind, resources)
