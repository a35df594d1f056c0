"""What a machine must have before the first job: looked at once, from the list of jobs that would run.

Standard library only. Each problem is one sentence that names the file, the key, what was got and what is allowed.
"""

import difflib
import os
import shutil
import sys
from pathlib import Path

from rankwise.core import environment, paths
from rankwise.core.config import ConfigError
from rankwise.data import sources
from rankwise.execution import gpu_lease, gpus, job_memory
from rankwise.study import outputs
from rankwise.study.plan import FOLDERS, MEASUREMENTS, RESULTS, Cell, Plan

GIB = 2**30
KINDS = ("disk", "gpu", "packages", "hub", "files")  # of what may be missing
HERE = ("gpu", "packages")  # of this machine; on a cluster, nodes have them
INPUT_RULES = {"prepare_dataset": "dataset", "prepare_model": "model"}
Job = tuple[str, dict[str, str]]  # rule, wildcards


def set_environment(plan: Plan, warm: bool) -> None:
    """What jobs inherit, here and on a cluster node (where the Snakefile is read again): this clone's sources, this
    interpreter, and the tracker, which is no part of a request because it changes no result. `warm`: whether they share a
    process that has imported torch. On a cluster none does: a step of SLURM ends with all that it has started.
    """
    sources = paths.PACKAGE.parent
    os.environ["PYTHONPATH"] = str(sources)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["RANKWISE_TRACKER"] = plan.study["tracker"]
    os.environ.setdefault("RANKWISE_WARM", "1" if warm else "0")


def check_targets(arguments: list[str], plan: Plan) -> None:
    """Refuse a mistyped target under results/.

    Raises:
        ConfigError: the target, and the nearest of those that the study plans.
    """
    targets = [argument for argument in arguments if argument.startswith(f"{RESULTS}/")]
    known = outputs.targets(plan) if targets else []
    for target in targets:
        if target not in known and (kinds := _lacking(plan, target)):
            raise ConfigError(
                plan.file,
                "target",
                target,
                f"what the study has cells for; it has none of {', '.join(kinds)}",
            )
        if target not in known:
            near = difflib.get_close_matches(target, known, n=3, cutoff=0.5)
            raise ConfigError(
                plan.file,
                "target",
                target,
                f"files that the study plans, nearest: {', '.join(near) or 'none'}",
            )


def _lacking(plan: Plan, target: str) -> list[str]:
    """Measurements that a table or figure by this path is made of, and of which the study has no cell."""
    folder, _, file = target.removeprefix(f"{RESULTS}/").partition("/")
    name = file.partition(".")[0]
    needed = (
        outputs.FIGURE_TABLES.get(name, ())
        if folder == "figures"
        else [name]
        if folder == "tables"
        else []
    )
    made_of = [
        outputs.TABLE_SOURCES.get(
            table, "train" if table in (*outputs.DERIVED, "examples") else None
        )
        for table in needed
    ]
    return [kind for kind in dict.fromkeys(made_of) if kind and not plan.cells(kind)]


def check_cards(limit: int | None, asked: dict[str, object]) -> None:
    """Refuse what Snakemake would clip without a word: `limit` is `--resources gpu`, `asked` a rule's own `gpu` by name.

    Raises:
        ConfigError: more cards than there are, or than the limit.
    """
    if limit is None:
        return
    there = gpus.found() if limit > 1 else []
    if limit > max(len(there), 1):
        has = f"it has {', '.join(map(str, there))}" if there else "it shows no NVIDIA GPU"
        raise ConfigError(
            "snakemake",
            "--resources gpu",
            limit,
            f"at most {len(there)} on this machine, for {has}",
        )
    for rule, number in asked.items():
        if isinstance(number, int) and number > limit:
            raise ConfigError(
                "snakemake",
                f"--set-resources {rule}:gpu",
                number,
                f"at most {limit}, as --resources gpu says",
            )


def problems(
    jobs: list[Job], plan: Plan, local: bool, own: bool = False, limit: int | None = None
) -> list[str]:
    """Every reason why these jobs could not end well: on this machine if `local`, with the packages installed unless they
    run in environments of their `own` (an image, or conda); `limit` is Snakemake's on the resource gpu.
    """
    left_out = [*(() if local else HERE), *(["packages"] if own else [])]
    return [
        line
        for kind in KINDS
        if kind not in left_out
        for line in lacking(kind, jobs, plan, limit=limit)
    ]


def lacking(
    kind: str,
    jobs: list[Job],
    plan: Plan,
    there: list[gpus.Card] | None = None,
    limit: int | None = None,
) -> list[str]:
    """Those reasons of one of KINDS; `there` are the cards, where they are known already."""
    if kind == "disk":
        return _disk(plan)
    if kind == "gpu":
        return _gpu(jobs, plan, there, limit)
    if kind == "packages":
        return _packages(jobs, plan)
    inputs = [(INPUT_RULES[rule], wildcards) for rule, wildcards in jobs if rule in INPUT_RULES]
    return [
        line
        for what, wildcards in inputs
        for line in sources.missing(kind, what, wildcards[what], plan)
    ]


def _disk(plan: Plan) -> list[str]:
    free = shutil.disk_usage(plan.root).free / GIB
    needed = plan.study["disk_gib"]
    return (
        [f"{plan.file}: disk_gib: {free:.1f} GiB are free, the study needs {needed}"]
        if free < needed
        else []
    )


def card_notes(jobs: list[Job], plan: Plan) -> list[str]:
    """What to know of the cards before these jobs start, a line each; nothing where none of them takes one."""
    there = gpus.found() if _kinds(jobs, plan) else []
    return [*gpu_lease.notes(there), *_unshared(jobs, plan)] if there else []


def _unshared(jobs: list[Job], plan: Plan) -> list[str]:
    """A line where trainings of a study that shares cards will not, for nobody knows what they need."""
    trainings = [
        _cell(wildcards) for rule, wildcards in jobs if rule in FOLDERS and plan.study["share"]
    ]
    unknown = [cell for cell in trainings if "peak_bytes" not in job_memory.prediction(plan, cell)]
    what = f"{len(unknown)} of {len(trainings)} trainings are not predicted, so each takes a whole card"
    return [f"{plan.file}: share: {what}; `snakemake predictions` predicts them"] if unknown else []


def _kinds(jobs: list[Job], plan: Plan) -> list[str]:
    """Rules of which a job needs a GPU."""
    measured = (job for job in jobs if job[0] in (*FOLDERS, *MEASUREMENTS))
    return list(
        dict.fromkeys(
            rule for rule, wildcards in measured if plan.needs_gpu(rule, _cell(wildcards))
        )
    )


def _gpu(
    jobs: list[Job], plan: Plan, there: list[gpus.Card] | None, limit: int | None
) -> list[str]:
    """One line for each kind of job that needs a GPU where there is none, or none is allowed."""
    kinds = _kinds(jobs, plan)
    if kinds and limit == 0:
        return [
            f"snakemake: --resources gpu: got 0, allowed: at least 1, for {', '.join(kinds)} of {plan.file}"
        ]
    if not kinds or (gpus.found() if there is None else there):
        return []
    keys = {
        "train": "device",
        "trial": "device",
        "ledger": "profile.device of ledger with measured: true",
    }
    return [
        f"{plan.file}: {keys.get(kind, f'profile.device of {kind}')}: got cuda, but this machine shows no NVIDIA GPU; "
        "allowed here: cpu, or what needs only shapes"
        for kind in kinds
    ]


def _packages(jobs: list[Job], plan: Plan) -> list[str]:
    """One line for each lock of these jobs that the installed packages do not follow; every job looks again."""
    cells = [
        (rule, _cell(wildcards)) for rule, wildcards in jobs if rule in (*FOLDERS, *MEASUREMENTS)
    ]
    locks = dict.fromkeys(plan.request(rule, cell)["environment"]["lock"] for rule, cell in cells)
    return [reason for lock in locks if (reason := environment.refusal(plan.workflow / lock))]


def _cell(wildcards: dict[str, str]) -> Cell:
    seed = {"seed": int(wildcards["seed"])} if "seed" in wildcards else {}
    names = (wildcards[name] for name in ("model", "dataset", "method"))
    return Cell(*names, int(wildcards["rank"]), **seed, trial=wildcards.get("trial"))
