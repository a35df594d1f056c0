"""Removal of files that killed processes have left in a project, when a study is planned.

- Parts: unfinished files and folders of processes that have ended (`core/files.py`).
- Checkpoints of training runs that have a result: a job removes its checkpoint after its result is
  on the disk, and may be killed between the two.
- Records of jobs that have ended (`core/progress.py`), and whose result or document is there.

Parts in a store outside of the project are left: other projects write there, and a job
removes those of its own result before it begins (`core/store.py`).

Standard library only: the Snakefile imports this module.
"""

from contextlib import suppress
from pathlib import Path

from rankwise.core import files, paths, progress
from rankwise.study.jobs import result_jobs
from rankwise.study.plan import Plan
from rankwise.study.settle import Settled


def tidy(plan: Plan, settled: Settled) -> list[Path]:
    """Remove parts of ended processes, and what jobs of this study have left beside their outputs.

    Args:
        plan: The plan of the study.
        settled: What planning found.

    Returns:
        What was removed.
    """
    removed = files.sweep(plan.root / paths.RESULTS)
    kept = list((plan.root / paths.CHECKPOINTS).glob("*.pt"))
    ended = progress.ended(plan.root)
    if not kept and not ended:
        return removed
    missing = {job.path for job in settled.missing}
    finished = {job.digest for job in result_jobs(plan) if job.path not in missing}
    for digest in {file.name.partition(".")[0] for file in kept} & finished:
        paths.remove_checkpoint(digest, plan.root)
    if ended:
        finished |= {job.digest for job in settled.current}
    for digest in ended.keys() & finished:
        with suppress(OSError):  # another planning was faster, or the disk is read-only
            ended[digest].unlink()
    gone = [file for file in (*kept, *ended.values()) if not file.exists()]
    return removed + gone
