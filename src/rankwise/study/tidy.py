"""What killed processes have left in a project, removed when a study is planned.

- Parts: unfinished files and folders of processes that have ended (`core/files.py`).
- Checkpoints of training runs that have a result: a job removes its checkpoint after its result is
  on the disk, and may be killed between the two.

Parts in a store outside of the project are left: other projects write there, and a job
removes those of its own result before it begins (`core/store.py`).

Standard library only: the Snakefile imports this module.
"""

from collections.abc import Iterable
from pathlib import Path

from rankwise.core import files, paths
from rankwise.study.jobs import PlannedJob, result_jobs
from rankwise.study.plan import Plan


def tidy(plan: Plan, missing: Iterable[PlannedJob]) -> list[Path]:
    """Remove parts of ended processes, and checkpoints of runs of this study that have a result.

    Args:
        plan: The plan of the study.
        missing: The jobs without a result, as `settle` returns them.

    Returns:
        What was removed.
    """
    removed = files.sweep(plan.root / paths.RESULTS)
    kept = list((plan.root / paths.CHECKPOINTS).glob("*.pt"))
    if not kept:
        return removed
    unfinished = {job.path for job in missing}
    finished = {job.digest for job in result_jobs(plan) if job.path not in unfinished}
    for file in kept:
        if file.name.partition(".")[0] in finished:
            file.unlink(missing_ok=True)
            removed.append(file)
    return removed
