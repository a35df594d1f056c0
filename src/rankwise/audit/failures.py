"""Which results of a study are absent, and why: from the store, the logs and the jobs' records.

A job that SIGKILL ended has said nothing. The process that waited for it adds a line to its log
(`execution/worker_client.py`). If that was killed, too, the next planning adds it.
"""

import fcntl
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rankwise.core import progress, requests
from rankwise.core.job_logs import last_sentence
from rankwise.core.store import LOCKS, Store
from rankwise.study.jobs import PlannedJob, requested_jobs, result_jobs
from rankwise.study.plan import Plan

# The end of a log of a training run that was told to stop, and wrote a checkpoint.
STOPPED = ("ended by SIGTERM", "ended by SIGINT")
ENDED = "ended by "  # how a line about a signal begins


def absent(plan: Plan, missing: Iterable[PlannedJob]) -> dict:
    """The absent results of a study, as `study/partial.py` describes them.

    Args:
        plan: The plan of the whole study.
        missing: The jobs whose results are in no store, as `settle.fetch` returns them.
    """
    missing_by_path = {job.path: job for job in missing}
    kept = Store(plan.root)
    planned: dict[str, int] = {}
    cells = []
    for job in requested_jobs(plan):
        planned[job.kind] = planned.get(job.kind, 0) + 1
        if job.path in missing_by_path:
            cells.append(_absent_cell(job, missing_by_path, kept, plan.root))
    concerned = {one["measurement"] for one in cells}
    return {
        "planned": {name: count for name, count in planned.items() if name in concerned},
        "cells": cells,
    }


def say_kills(root: Path) -> None:
    """Add to the log of each job that was killed what is known of its end, once.

    Args:
        root: The project's folder.
    """
    for record in progress.records(root).values():
        if record["state"] != progress.KILLED or not record["log"]:
            continue
        log = root / record["log"]
        with suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            if lines and not lines[-1].startswith(ENDED):
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(f"\n{record['reason']}\n")


def titles(plan: Plan) -> dict[str, str]:
    """First output of each job that writes a result -> what it computes, in a few words."""
    return {job.path: requests.title(job.request) for job in result_jobs(plan)}


def _absent_cell(
    job: PlannedJob, missing: dict[str, PlannedJob], kept: Store, root: Path
) -> dict[str, object]:
    status, reason, log = _status(job, missing, kept, root)
    return {
        "measurement": job.kind,
        "cell": job.cell.columns,
        "title": requests.title(job.request),
        "status": status,
        "reason": reason,
        "log": log,
    }


def _status(
    job: PlannedJob, missing: dict[str, PlannedJob], kept: Store, root: Path
) -> tuple[str, str, str]:
    """Status, reason and log of a job without a result."""
    log = root / job.log
    if _is_running(kept, job.digest):
        return "running", "", job.log
    if log.is_file():
        reason = last_sentence(log)
        return ("stopped" if reason in STOPPED else "failed"), reason, job.log
    for path in job.inputs:
        if path in missing:
            status, reason, input_log = _status(missing[path], missing, kept, root)
            if status in ("failed", "waiting"):
                what = f"{requests.title(missing[path].request)}: {reason}"
                return "waiting", (what if status == "failed" else reason), input_log
    return "not run", "", ""


def _is_running(kept: Store, digest: str) -> bool:
    """Whether a job holds the lock on a digest: it computes the result now."""
    try:
        with (kept.folder / LOCKS / digest).open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
