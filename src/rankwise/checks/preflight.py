"""What a machine must have before the first job starts, checked once for all jobs that would run.

Standard library only. Each problem is one sentence that names the file, the key, what was got and
what is allowed.
"""

import difflib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rankwise.checks import disk, evaluation_tasks, model_entries, own_classes
from rankwise.core import environment, paths, process_names, tracker
from rankwise.core.config import ConfigError
from rankwise.core.store import Store, StoreError
from rankwise.data import datasets, sources
from rankwise.execution import gpu_lease, gpus, job_memory
from rankwise.study import outputs
from rankwise.study.jobs import DATASET, MODEL, PlannedJob, result_jobs, targets
from rankwise.study.measurements import EVALUATE
from rankwise.study.plan import FOLDERS, MEASUREMENTS, RESULTS, Plan

KINDS = (
    "disk",
    "gpu",
    "cores",
    "packages",
    "hub",
    "files",
    "models",
    "rows",
)  # of things that may be missing
# What this machine needs only if jobs run on it. On a cluster, the nodes have it.
LOCAL_KINDS = ("gpu", "cores", "packages")
# The rules whose jobs fetch from the hub or from a user's files.
FETCHING_RULES = ("prepare_dataset", "prepare_model")


def set_environment(plan: Plan, warm: bool) -> None:
    """Set what jobs inherit: this clone's sources, interpreter and process, and the tracker.

    The tracker is not part of a request because it changes no result. On a node of a cluster the
    Snakefile is read again, so the variables are set there, too.

    Args:
        plan: The study.
        warm: Whether jobs share a process that has imported torch. On a cluster they do not: a step
            of SLURM ends with everything that it has started.
    """
    interpreter_folder = str(Path(sys.executable).parent)
    os.environ["PYTHONPATH"] = str(paths.PACKAGE.parent)
    os.environ["PATH"] = os.pathsep.join([interpreter_folder, os.environ["PATH"]])
    os.environ["RANKWISE_TRACKER"] = plan.study["tracker"]
    os.environ["RANKWISE_STUDY"] = plan.study["name"]
    os.environ["RANKWISE_PLANNER"] = process_names.name()
    os.environ.setdefault("RANKWISE_WARM", "1" if warm else "0")


# What the command line asks for -------------------------------------------------------------------


def check_targets(arguments: list[str], plan: Plan) -> dict[str, str]:
    """Check the targets under results/ among Snakemake's arguments.

    Returns:
        Target -> the file that is meant, of the targets that leave out a result's digest.

    Raises:
        ConfigError: the study does not plan a target. The message names the measurement that the
            study lacks, or the nearest targets that it plans.
    """
    asked = [argument for argument in arguments if argument.startswith(f"{RESULTS}/")]
    known = targets(plan) if asked else {}
    for target in asked:
        if target in known:
            continue
        lacking_measurements = _lacking_measurements(plan, target)
        if lacking_measurements:
            allowed = (
                f"what the study has cells for; it has none of {', '.join(lacking_measurements)}"
            )
        else:
            near = difflib.get_close_matches(target, sorted(known), n=3, cutoff=0.5)
            allowed = f"files that the study plans, nearest: {', '.join(near) or 'none'}"
        raise ConfigError(plan.file, "target", target, allowed)
    return {target: known[target] for target in asked if known[target] != target}


def _lacking_measurements(plan: Plan, target: str) -> list[str]:
    """Measurements that a figure or table needs and the study has no cell of."""
    folder, _, file = target.removeprefix(f"{plan.results}/").partition("/")
    name = file.partition(".")[0]
    tables: Iterable[str] = ()
    if folder == "figures":
        tables = outputs.FIGURE_TABLES.get(name, ())
    elif folder == "tables":
        tables = [name]
    needed: dict[str, None] = {}
    for table in tables:
        if table in outputs.TABLE_SOURCES:
            needed[outputs.TABLE_SOURCES[table]] = None
        elif table in outputs.EVALUATED:
            needed[EVALUATE] = None
        elif table in (*outputs.DERIVED, "examples"):
            needed["train"] = None
    return [measurement for measurement in needed if not plan.cells(measurement)]


def check_gpus(limit: int | None, asked: dict[str, object]) -> None:
    """Check the numbers of GPUs on Snakemake's command line, which Snakemake lowers without a word.

    Args:
        limit: The value of `--resources gpu`, or None.
        asked: Rule -> its own `gpu`, from `--set-resources`.

    Raises:
        ConfigError: the limit is above the number of GPUs, or a rule asks for more than the limit.
    """
    if limit is None:
        return
    found = gpus.available() if limit > 1 else []
    if limit > max(len(found), 1):
        has = f"it has {', '.join(map(str, found))}" if found else "it shows no NVIDIA GPU"
        allowed = f"at most {len(found)} on this machine, for {has}"
        raise ConfigError("snakemake", "--resources gpu", limit, allowed)
    for rule, number in asked.items():
        if isinstance(number, int) and number > limit:
            allowed = f"at most {limit}, as --resources gpu says"
            raise ConfigError("snakemake", f"--set-resources {rule}:gpu", number, allowed)


# What jobs need -----------------------------------------------------------------------------------


def jobs_that_write(plan: Plan, paths: Iterable[str]) -> list[PlannedJob]:
    """The jobs of a study that write any of these results.

    Jobs that write tables or figures need nothing special, so they are left out.
    """
    wanted = set(paths)
    return [job for job in result_jobs(plan) if job.path in wanted]


def problems(
    jobs: list[PlannedJob],
    plan: Plan,
    local: bool,
    own: bool = False,
    limit: int | None = None,
) -> list[str]:
    """Every reason why jobs could not end well.

    Args:
        jobs: The jobs that would run.
        plan: The study.
        local: Whether they run on this machine.
        own: Whether they run in environments of their own (an image, or conda), not with the
            installed packages.
        limit: Snakemake's limit on the resource `gpu`, or None.
    """
    skipped = set() if local else set(LOCAL_KINDS)
    if own:
        skipped.add("packages")
    found = []
    for kind in KINDS:
        if kind not in skipped:
            found += lacking(kind, jobs, plan, limit=limit)
    return found


def lacking(
    kind: str,
    jobs: list[PlannedJob],
    plan: Plan,
    known_gpus: list[gpus.Gpu] | None = None,
    limit: int | None = None,
) -> list[str]:
    """The problems of one of `KINDS`.

    Args:
        kind: One of `KINDS`.
        jobs: The jobs that would run.
        plan: The study.
        known_gpus: The GPUs of this machine; None if they are not known yet.
        limit: Snakemake's limit on the resource `gpu`, or None.
    """
    if kind == "gpu":
        return _gpu(jobs, plan, known_gpus, limit)
    by_kind = {"disk": _disk, "cores": _cores, "packages": _packages, "models": _models}
    if kind in by_kind:
        return by_kind[kind](jobs, plan)
    if kind == "rows":
        return [line for job in jobs if job.kind == DATASET for line in _rows(job.name, plan)]
    found = []
    for job in jobs:
        if job.rule in FETCHING_RULES:
            found += sources.missing(kind, job.kind, job.name, plan)
    if kind == "files":
        found += [*_changed_sources(jobs, plan), *evaluation_tasks.files(jobs, plan)]
    if kind == "hub":
        found += evaluation_tasks.hub(jobs, plan)
    return found


def _changed_sources(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """Files that are not those of their entry's `sha256`, of inputs that are not prepared anew."""
    fetched = {(job.kind, job.name) for job in jobs if job.rule in FETCHING_RULES}
    read: dict[tuple[str, str], None] = {}
    for job in jobs:
        if job.trains:
            read.update(dict.fromkeys([("dataset", job.cell.dataset), ("model", job.cell.model)]))
    found = []
    for kind, name in read:
        if (kind, name) not in fetched:
            found += sources.changed(kind, name, plan)
    return found


def _disk(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """Problems of the disk for the results: missing, not writable, too full."""
    broken = disk.broken_links(plan.root)
    if broken:
        return broken
    if jobs:
        try:
            Store(plan.root).check_writable()
        except StoreError as error:
            return [str(error)]
    free_gib, needed_gib = disk.free_gib(plan.root), plan.study["disk_gib"]
    if free_gib >= needed_gib:
        return []
    folder = disk.results_folder(plan.root)
    return [
        f"{plan.file}: disk_gib: {free_gib:.1f} GiB are free in {folder}, "
        f"the study needs {needed_gib}"
    ]


def _gpu(
    jobs: list[PlannedJob], plan: Plan, known_gpus: list[gpus.Gpu] | None, limit: int | None
) -> list[str]:
    """One line for each kind of job that needs a GPU, if there is none or none is allowed."""
    kinds = _kinds_on_gpu(jobs, plan)
    if not kinds:
        return []
    if limit == 0:
        allowed = f"at least 1, for {', '.join(kinds)} of {plan.file}"
        return [f"snakemake: --resources gpu: got 0, allowed: {allowed}"]
    found = gpus.available() if known_gpus is None else known_gpus
    most = _most_processes(jobs, plan)
    if found and limit is not None and limit < most <= len(found):
        allowed = f"at least {most}, the processes of a training of {plan.file}"
        return [f"snakemake: --resources gpu: got {limit}, allowed: {allowed}"]
    if found and len(found) < most:
        has = ", ".join(map(str, found))
        return [
            f"{plan.file}: schedule.processes: got {most}, allowed: at most {len(found)} on this "
            f"machine, one for each of its GPUs: {has}"
        ]
    if found:
        return []
    return [
        f"{plan.file}: {_device_key(kind)}: got cuda, but this machine shows no NVIDIA GPU; "
        "allowed here: cpu, or what needs only shapes"
        for kind in kinds
    ]


def _most_processes(jobs: list[PlannedJob], plan: Plan) -> int:
    """The most processes that train one cell together; 1 where nothing trains."""
    counts = [plan.processes(job.kind, job.cell) for job in jobs if job.trains]
    return max(counts, default=1)


def _cores(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """One line if the processes of a training are more than the cores of this machine."""
    most, cores = _most_processes(jobs, plan), os.cpu_count() or 1
    if most == 1 or most <= cores:
        return []
    return [
        f"{plan.file}: schedule.processes: got {most}, allowed: at most {cores}, the cores of this "
        "machine"
    ]


def _device_key(kind: str) -> str:
    """The key of a study that puts a kind of job on a GPU."""
    if kind in (*FOLDERS, EVALUATE):
        return "device"
    measured = " with measured: true" if kind == "ledger" else ""  # a predicted ledger needs no GPU
    return f"profile.device of {kind}{measured}"


def _kinds_on_gpu(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """The kinds of jobs with a job that needs a GPU."""
    on_gpu = [job for job in jobs if job.measures_cell and plan.needs_gpu(job.kind, job.cell)]
    return list(dict.fromkeys(job.kind for job in on_gpu))


def _packages(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """One line for each lock that the installed packages do not follow, each class of a user's or a
    package's that cannot be imported, lm-evaluation-harness, and the tracker.
    """
    measured = [job for job in jobs if job.kind in (*FOLDERS, EVALUATE, *MEASUREMENTS)]
    locks = dict.fromkeys(job.request["environment"]["lock"] for job in measured)
    refusals = [environment.refusal(plan.workflow / lock) for lock in locks]
    broken = own_classes.not_importable(measured, plan.root)
    others = [*evaluation_tasks.harness(jobs, plan), *_tracker(jobs, plan)]
    return [refusal for refusal in refusals if refusal] + broken + others


def _tracker(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """One line if the study's tracker is not installed and a job would use it."""
    name = plan.study["tracker"]
    package = tracker.missing(name)
    if package is None or not any(job.trains or job.rule == "pretrain_model" for job in jobs):
        return []
    return [
        f"{plan.file}: tracker: got {name}, but the package {package} is not installed; "
        f"allowed: none, or install it: {sys.executable} -m pip install {package}"
    ]


def _rows(name: str, plan: Plan) -> list[str]:
    """The mistakes in the rows of a dataset, as its preparation would find them one by one.

    Nothing is downloaded: a dataset on the hub is checked by the job that prepares it.
    """
    entry = plan.library["datasets"][name]
    where = f"config/datasets.yaml: {name}"
    if "generated" in entry:
        return datasets.problems(entry, where)
    if "files" in entry:
        return datasets.problems(entry, where, sources.wrong_splits(name, plan))
    return []


def _models(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """Where entries of models that jobs use differ from the models' files on this machine."""
    tasks_by_model: dict[str, set[str]] = {job.name: set() for job in jobs if job.kind == MODEL}
    for job in jobs:
        if job.measures_cell:
            task = plan.library["datasets"][job.cell.dataset]["task"]
            tasks_by_model.setdefault(job.cell.model, set()).add(task)
    found = []
    for name, tasks in tasks_by_model.items():
        found += model_entries.problems(name, plan.library["models"][name], tasks)
        trained = {job.cell.dataset for job in jobs if job.trains and job.cell.model == name}
        datasets_ = {one: plan.library["datasets"][one] for one in sorted(trained)}
        found += model_entries.answer_problems(name, plan.library["models"][name], datasets_)
    return found


# What to know of the GPUs -------------------------------------------------------------------------


def gpu_notes(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """Notes on this machine's GPUs before jobs start; nothing if no job takes one."""
    if not _kinds_on_gpu(jobs, plan):
        return []
    found = gpus.available()
    return [*gpu_lease.notes(found), *_unshared(jobs, plan)] if found else []


def _unshared(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """A line if the study shares GPUs and the memory of some training runs is not predicted."""
    trainings = [job for job in jobs if job.trains and plan.study["share"]]
    unpredicted = 0
    for job in trainings:
        unpredicted += "peak_bytes" not in job_memory.prediction(plan, job.cell)
    if not unpredicted:
        return []
    return [
        f"{plan.file}: share: {unpredicted} of {len(trainings)} trainings are not predicted, "
        "so each takes a whole GPU; `snakemake predictions` predicts them"
    ]
