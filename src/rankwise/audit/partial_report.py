"""Tables, figures and the page of a study, made from the results that are there.

The jobs are those of the whole study with smaller inputs (`study/partial.py`). They run here, not
under Snakemake, so that a report can be had while a sweep runs in the same folder, which Snakemake
locks. When more results are there, the requests differ, and Snakemake makes the documents anew.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rankwise.audit.failures import absent, say_kills
from rankwise.core import documents, paths, requests, result
from rankwise.core.job_logs import last_sentence
from rankwise.study import jobs, outputs, partial
from rankwise.study.jobs import FIGURE, PlannedJob
from rankwise.study.plan import Plan
from rankwise.study.settle import fetch


class Report(NamedTuple):
    """The documents that were made.

    Attributes:
        page: The path of the page, relative to the project.
        planned: How many results the study asks for.
        absent: What is absent, as `study/partial.py` describes it.
        ended: Measurement -> how many of its results have each status.
        made: First files of the documents that were made now.
        left_out: First files of the documents for which no result is there.
        failed: First file of each document that could not be made -> [sentence, log].
    """

    page: str
    planned: int
    absent: dict
    ended: dict[str, Counter]
    made: list[str]
    left_out: list[str]
    failed: dict[str, list[str]]


def find(plan: Plan) -> tuple[partial.PartialPlan, int]:
    """The existing results of a study.

    Returns:
        The plan of the existing results, and the number of results in the whole study.

    Raises:
        StoreError: A store, or a file in it, is not as it must be.
    """
    _, missing = fetch(plan)
    say_kills(plan.root)
    return partial.PartialPlan(plan, absent(plan, missing)), len(jobs.requested_jobs(plan))


def build(plan: partial.PartialPlan, planned: int) -> Report:
    """Make every document of a plan that its page needs, and the numbers for a text.

    Args:
        plan: The plan of the existing results.
        planned: How many results the whole study asks for.

    Raises:
        ValueError: No result is there.
    """
    if len(plan.absent["cells"]) == planned:
        raise ValueError(
            f"{plan.file}: got no result, allowed: a study with at least one of its {planned} "
            "results; run snakemake first"
        )
    page = plan.output(outputs.REPORT)
    planned_documents = partial.document_jobs(plan)
    needed = {job.path for job in jobs.required_jobs(jobs.planned_jobs(plan), page)}
    needed.add(plan.output(outputs.NUMBERS[0]))
    *others, page_job = sorted(
        (job for job in planned_documents if job.path in needed), key=lambda job: job.path == page
    )
    made, failed = _run(others, plan.root)
    not_drawn = {}
    for job in others:
        if job.kind == FIGURE and job.path in failed:
            name = outputs.CLAIMS if job.rule == "claims_figure" else job.name
            not_drawn[name] = failed[job.path][0]
    if not_drawn:
        page_job = partial.without_figures(page_job, not_drawn)
    page_made, page_failed = _run([page_job], plan.root, set(failed))
    return Report(
        page=page,
        planned=planned,
        absent=plan.absent,
        ended=_ended(plan),
        made=made + page_made,
        left_out=partial.left_out(plan),
        failed=failed | page_failed,
    )


def _ended(plan: Plan) -> dict[str, Counter]:
    """Measurement -> how many of the results that are there have each status."""
    counts: dict[str, Counter] = {}
    for job in jobs.requested_jobs(plan):
        status = result.read(plan.root / job.path)["status"]
        counts.setdefault(job.kind, Counter())[status] += 1
    return counts


# Running ------------------------------------------------------------------------------------------


def _run(
    wanted: list[PlannedJob], root: Path, not_made: Iterable[str] = ()
) -> tuple[list[str], dict[str, list[str]]]:
    """Run jobs, as many at once as there are cores, each after those whose files it reads.

    Args:
        wanted: The jobs; each comes after the jobs whose files it reads.
        root: The project's folder.
        not_made: Files that could not be made before.

    Returns:
        First files of the documents that were made, and of those that could not be, with the
        sentence that says why and the log.
    """
    by_path: dict[str, Future] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for job in wanted:
            # Jobs start in the order in which they are submitted, so none waits for a later one.
            future = pool.submit(_make, job, root, dict(by_path), set(not_made))
            by_path.update(dict.fromkeys(job.outputs, future))
    made, failed = [], {}
    for job in wanted:
        outcome = by_path[job.path].result()
        if isinstance(outcome, list):
            failed[job.path] = outcome
        elif outcome:
            made.append(job.path)
    return made, failed


def _make(
    job: PlannedJob, root: Path, before: dict[str, Future], not_made: set[str]
) -> bool | list[str]:
    """Make a document, unless it is there as planned.

    Returns:
        Whether it was made now; or, if it could not be, why, and the log that tells more.
    """
    for path in job.inputs:
        if path in not_made or (path in before and isinstance(before[path].result(), list)):
            return [f"{path} could not be made", ""]
    if _is_current(job, root):
        return False
    digest = requests.write(job.request, root)
    script = Path(next(name for name in job.request["code"] if name.startswith(paths.SCRIPTS)))
    command = [sys.executable, "-m", "rankwise.execution.worker_client", "--documents", script.stem]
    command += ["--request", f"@{requests.file(digest)}", "--output", job.path]
    log = root / job.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        ended = subprocess.run(
            command,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return True if ended.returncode == 0 else [last_sentence(log), job.log]


def _is_current(job: PlannedJob, root: Path) -> bool:
    is_there = all((root / path).is_file() for path in job.outputs)
    return is_there and documents.made(job.request, root) == documents.wanted(job.request, root)
