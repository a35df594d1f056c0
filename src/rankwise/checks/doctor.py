"""`rankwise doctor`: what this machine can run, what a study needs, and what is missing, before anything starts.

It looks at the jobs whose results are not there yet. What is missing everywhere (files, the hub, disk, packages) stops a
cluster, too; what only this machine lacks does not, where SLURM answers. Nothing here imports torch.
"""

from collections import Counter
from pathlib import Path

from rankwise.audit import rerun_plan
from rankwise.audit.rerun_plan import Job
from rankwise.checks import machine, preflight
from rankwise.checks import missing as shortfalls
from rankwise.core import config, paths
from rankwise.data import sources
from rankwise.execution import job_memory, slurm_nodes, slurm_request
from rankwise.study.measurements import TIMED
from rankwise.study.plan import FOLDERS, Plan, study_file

STUDY, REPORT_LOCK, PROFILE = (
    "config/config.yaml",
    "envs/report.lock",
    "profiles/slurm/profile.yaml",
)


def examine(root: Path, study: str | None = None) -> dict:
    """`machine`: facts; `needs` of the `study`; `missing`: sentences, each with what to `do` and whether only `here`;
    `notes`; `cluster`: what SLURM's partitions can run; `runs`: here, cluster or None; `command`: what starts it.

    Raises:
        ConfigError: the study is wrong.
    """
    name = study or STUDY
    plan = Plan(config.read_yaml(root / name, name), root, study_file([root / name], root))
    facts, known = machine.look(root), dict(rerun_plan.jobs(plan))
    todo = waiting(plan, known)
    needs = needed(plan, known, todo)
    missing = shortfalls.missing(plan, rules(plan, todo), facts, needs)
    found = {
        "study": plan.file,
        "machine": facts,
        "needs": needs,
        "missing": missing,
        "notes": shortfalls.notes(facts, needs),
    }
    submitted = partitions(plan, todo, facts) if missing else None
    elsewhere = submitted and not submitted["problems"] and all(one["here"] for one in missing)
    runs = "here" if not missing else "cluster" if elsewhere else None
    return {**found, "cluster": submitted, "runs": runs, "command": _command(plan.file, runs)}


def _command(file: str, runs: str | None) -> str | None:
    options = [
        *(["--profile profiles/slurm"] if runs == "cluster" else []),
        f"--configfile {file}" * (file != STUDY),
    ]
    return " ".join(["snakemake", *filter(None, options)]) if runs else None


# What would run -------------------------------------------------------------------------------------------------------


def waiting(plan: Plan, known: dict[str, Job]) -> dict[str, Job]:
    """The jobs whose results are not there, or answer another request; inputs only where such a training reads them."""
    todo = {
        path: job
        for path, job in known.items()
        if rerun_plan.stored(plan.root / path).get("request") != job.request
    }
    trained = [job.cell for job in todo.values() if job.measurement in FOLDERS]
    models = {cell.model for cell in trained}
    corpora = {plan.corpus(name) for name in models if plan.input_path("model", name) in todo}
    read = {"model": models, "dataset": {cell.dataset for cell in trained} | corpora}
    return {
        path: job for path, job in todo.items() if job.cell or job.name in read[job.measurement]
    }


def rules(plan: Plan, todo: dict[str, Job]) -> list[preflight.Job]:
    """The jobs as Snakemake knows them."""
    return [_rule(plan, job) for job in todo.values()]


def _rule(plan: Plan, job: Job) -> preflight.Job:
    if job.cell:
        return job.measurement, {
            name: str(value) for name, value in job.cell._asdict().items() if value is not None
        }
    pretrained = job.measurement == "model" and plan.corpus(job.name)
    return "pretrain_model" if pretrained else f"prepare_{job.measurement}", {
        job.measurement: job.name
    }


# What it needs --------------------------------------------------------------------------------------------------------


def needed(plan: Plan, known: dict[str, Job], todo: dict[str, Job]) -> dict:
    """What the jobs that would run need, in the units of the names; None: not known."""
    inputs = [(job.measurement, job.name) for job in todo.values() if not job.cell]
    locks = dict.fromkeys(
        [*(job.request["environment"]["lock"] for job in todo.values()), REPORT_LOCK]
    )
    hubs = {f"{kind} {name}": sources.repository(kind, name, plan) for kind, name in inputs}
    folders = {f"{kind} {name}": sources.folder(kind, name, plan) for kind, name in inputs}
    time = rerun_plan.cost(plan, [{"files": [path]} for path in todo], known)
    return {
        "results": len(known),
        "jobs": dict(Counter(job.measurement for job in todo.values())),
        "gpu_jobs": sum(on_gpu(plan, job) for job in todo.values()),
        **_memory(plan, todo),
        "cpu_threads": plan.study["cpu_threads"],
        "disk_gib": plan.study["disk_gib"],
        "hub": {name: f"{one['repo']}@{one['revision'][:12]}" for name, one in hubs.items() if one},
        "folders": {name: one for name, one in folders.items() if one},
        "locks": list(locks),
        **{name: time[name] for name in ("hours", "gpu_hours")},
        "jobs_of_unknown_time": time["unknown"],
    }


def _memory(plan: Plan, todo: dict[str, Job]) -> dict:
    """The largest predicted peak of a training, and the host memory of the largest job, each with the job."""
    sizes = [(_mib(plan, job), _called(job)) for job in todo.values() if job.cell]
    trainings = [job for job in todo.values() if job.measurement in FOLDERS]
    predicted = [
        (job_memory.prediction(plan, job.cell).get("peak_bytes"), _called(job)) for job in trainings
    ]
    known = [one for one in predicted if one[0] is not None]
    (size, largest), (peak, highest) = (
        max(sizes, default=(0, None)),
        max(known, default=(None, None)),
    )
    return {
        "memory_mib": size,
        "memory_of": largest,
        "peak_bytes": peak,
        "peak_of": highest,
        "trainings_not_predicted": len(trainings) - len(known),
    }


def _called(job: Job) -> str:
    return f"{job.measurement} {job.name}"


def _mib(plan: Plan, job: Job) -> int:
    trains = job.measurement in FOLDERS
    return (
        job_memory.training_mib(plan, job.cell)
        if trains
        else job_memory.profile_mib(plan, job.measurement, job.cell)
    )


def on_gpu(plan: Plan, job: Job) -> bool:
    """Whether a job takes a GPU."""
    return bool(job.cell) and plan.needs_gpu(job.measurement, job.cell)


# Where it could run beside this machine -------------------------------------------------------------------------------


def partitions(plan: Plan, todo: dict[str, Job], facts: dict[str, dict]) -> dict | None:
    """`problems` as profiles/cluster.yaml stands, and the partitions that could run the jobs with a `gpu` and those without
    (`cpu`), None of a kind that has none; None where no cluster answers.
    """
    if "nodes" not in facts["slurm"]:
        return None
    there = [
        slurm_nodes.Node(**config.without(node, ("count",))) for node in facts["slurm"]["nodes"]
    ]
    try:
        given = slurm_request.settings("gpus", plan.root)
    except config.ConfigError as error:
        return {"problems": [str(error)], "gpu": None, "cpu": None}
    asks = [_ask(plan, job, given) for job in todo.values() if job.cell]
    kinds = {"gpu": [one for one in asks if one.gpus], "cpu": [one for one in asks if not one.gpus]}
    found = {kind: _able(own, there, plan.file) if own else None for kind, own in kinds.items()}
    cores = config.read_yaml(paths.find(plan.root, PROFILE), PROFILE).get("cores")
    clipped = slurm_request.options(given, plan.file, plan.study["cpu_threads"], cores, None)
    return {"problems": [*clipped, *slurm_nodes.problems(asks, there, plan.file)], **found}


def _able(asks: list[slurm_request.Ask], there: list[slurm_nodes.Node], file: str) -> list[str]:
    """The partitions that could run all of these submissions."""
    names = dict.fromkeys(node.partition for node in there)
    return [
        name
        for name in names
        if not slurm_nodes.problems([one._replace(partition=name) for one in asks], there, file)
    ]


def _ask(plan: Plan, job: Job, given: dict) -> slurm_request.Ask:
    """What profiles/slurm asks for a job."""
    trains = job.measurement in FOLDERS
    found = {
        "_cores": plan.study["cpu_threads"] if trains or job.measurement in TIMED else 1,
        "mem_mb": _mib(plan, job),
        "runtime": job_memory.training_min(plan, job.cell) if trains else 60,
    }
    return slurm_request.ask(
        job.measurement, {**slurm_request.resources(given, int(on_gpu(plan, job))), **found}
    )
