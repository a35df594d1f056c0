"""Files of a study that it no longer plans: named by `rankwise plan`, removed by `rankwise clean`.

Removing them loses nothing: results are links to the store, and documents and logs are of settings
that the study has no more. A result that is a file of its own is a leftover only if the store has
it, too. The paper study's folder is results/ itself; other studies' folders, the store, checkpoints
and caches in it are not looked at. Standard library only.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rankwise.audit import stored
from rankwise.audit.store_remove import remove_empty
from rankwise.core import documents, store
from rankwise.core.store import Store, StoreError
from rankwise.core.store_parts import disagreement
from rankwise.study import outputs
from rankwise.study.jobs import (
    CELL_KINDS,
    DERIVED_RULES,
    EVALUATED,
    TABLE_ENDINGS,
    PlannedJob,
    document_jobs,
    result_jobs,
)
from rankwise.study.plan import Plan

# Names, without endings, of all documents that a study can have. Others are a user's own.
NAMES = {
    "tables": {*outputs.TABLE_SOURCES, *outputs.DERIVED, Path(outputs.EXAMPLES).stem},
    "figures": set(outputs.FIGURE_TABLES),
}
# Documents that lie in the study's folder itself.
SINGLE = (
    *(f"{outputs.CLAIMS}.{ending}" for ending in (*TABLE_ENDINGS, *outputs.DRAWN)),
    *outputs.NUMBERS,
    outputs.ARTIFACT,
    outputs.REPORT,
)
# The jobs of older releases wrote benchmark files beside their logs.
LOGS = ("*.log", "*.benchmark.tsv")
# Rules whose logs have a folder of their own, and rules that have one log.
RULES_WITH_FOLDERS = (
    *CELL_KINDS, "choose", "collect", "figure", "prepare_dataset", "prepare_model",
    "pretrain_model",
)  # fmt: skip
RULES_WITH_ONE_JOB = (
    "artifact", "claims", "claims_figure", "collect_examples", *DERIVED_RULES, EVALUATED, "exports",
    "numbers", "report",
)  # fmt: skip


def leftovers(plan: Plan) -> list[str]:
    """Files in the study's folders, and logs, that the study no longer plans.

    Args:
        plan: The plan of the study.

    Returns:
        Paths relative to the project. They may be removed.
    """
    jobs = document_jobs(plan)
    found = [
        *_results(plan),
        *_documents(plan, jobs),
        *_notes(plan, jobs),
        *_logs(plan, [*result_jobs(plan), *jobs]),
    ]
    return [path.relative_to(plan.root).as_posix() for path in found]


def clean(plan: Plan, paths: Iterable[str]) -> None:
    """Remove leftovers, and folders that are empty then.

    Args:
        plan: The plan of the study.
        paths: As `leftovers` gives them.
    """
    tops = plan.root / plan.results, plan.root / plan.logs
    for path in paths:
        file = plan.root / path
        store.unlink_result(file)
        for top in tops:
            if file.is_relative_to(top):
                remove_empty(file.parent, top)


# Results ------------------------------------------------------------------------------------------


def uncollected(plan: Plan) -> list[str]:
    """Results in the study's folder that the study no longer plans, and that no store has.

    They are files of their own: results of the older layout, or of a copy that followed links.
    `rankwise collect` adds them to the store.

    Args:
        plan: The plan of the study.

    Returns:
        Paths relative to the project.
    """
    files = [file for file in _unplanned(plan) if not file.is_symlink() and not _kept(plan, file)]
    return [file.relative_to(plan.root).as_posix() for file in files]


def _results(plan: Plan) -> Iterator[Path]:
    """Links, and files of results that the store has."""
    for file in _unplanned(plan):
        if file.is_symlink():
            yield file
            continue
        kept = _kept(plan, file)
        if kept:
            yield file
            yield from (
                path for path in (file.parent / name for name in kept.data_files) if path.is_file()
            )


def _unplanned(plan: Plan) -> Iterator[Path]:
    """Files that are named like results, and that the study does not plan."""
    planned = {plan.root / job.path for job in result_jobs(plan)}
    found = stored.files(plan.root / plan.results)
    for file in (*found.results, *found.seconds, *found.damaged, *found.dangling):
        if file not in planned:
            yield file


def _kept(plan: Plan, file: Path) -> stored.Stored | None:
    """A result, if the store has the same."""
    try:
        result = stored.read(file)
    except StoreError:
        return None
    kept = Store(plan.root).find(result.place)
    return result if kept and disagreement(kept, file) is None else None


# Documents, notes, logs ---------------------------------------------------------------------------


def _documents(plan: Plan, jobs: Iterable[PlannedJob]) -> Iterator[Path]:
    folder = plan.root / plan.results
    planned = {plan.root / path for job in jobs for path in job.outputs}
    candidates = [folder / name for name in SINGLE]
    for part, names in NAMES.items():
        files = sorted((folder / part).glob("*.*"))
        candidates += [file for file in files if file.stem in names]
    yield from (file for file in candidates if file.is_file() and file not in planned)


def _notes(plan: Plan, jobs: Iterable[PlannedJob]) -> Iterator[Path]:
    """Notes of planning and jobs on documents that are no longer planned."""
    planned = set()
    for job in jobs:
        document = job.request["document"]
        planned.add(plan.root / documents.planned_file(*document))
        planned.add(plan.root / documents.made_file(*document))
    for file in sorted((plan.root / plan.results / documents.FOLDER).rglob("*.json")):
        if file not in planned:
            yield file


def _logs(plan: Plan, jobs: Iterable[PlannedJob]) -> Iterator[Path]:
    """Logs of jobs that are no more planned.

    Logs of other studies lie in folders with the studies' names below those of the paper study. A
    study may have the name of a rule; then all logs below it stay.
    """
    planned = {plan.root / job.log for job in jobs}
    folder, results = plan.root / plan.logs, plan.root / plan.results
    candidates = [folder / f"{rule}.log" for rule in RULES_WITH_ONE_JOB]
    for rule in RULES_WITH_FOLDERS:
        is_study = any((results / rule / part).is_dir() for part in store.PARTS)
        if not is_study:
            for pattern in LOGS:
                candidates += sorted((folder / rule).rglob(pattern))
    yield from (file for file in candidates if file.is_file() and file not in planned)
