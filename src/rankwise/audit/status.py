"""`rankwise status`: which jobs of a study are done, running, waiting or failed, and the time left.

It asks no Snakemake and takes no lock, so it works beside a running workflow and after it. A job is
done if the store has its result. What a job does now, and why one failed, is in the
file that the job itself keeps (`core/progress.py`). Standard library only.
"""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.audit.rerun_plan import cost
from rankwise.audit.unkept import unkept
from rankwise.core import progress, result
from rankwise.core.store import Store
from rankwise.execution import gpus
from rankwise.study.jobs import (
    FIGURE,
    PAGE,
    PREDICT,
    TABLE,
    PlannedJob,
    document_jobs,
    planned_jobs,
    required_jobs,
    result_jobs,
)
from rankwise.study.plan import Plan, read_plan

DONE, WAITING, BLOCKED = "done", "waiting", "blocked"
OK = "ok"
# What a record says -> how its job is counted. A job that was stopped runs again.
COUNTED_AS = {
    progress.RUNNING: progress.RUNNING,
    progress.FAILED: progress.FAILED,
    progress.KILLED: progress.FAILED,
    progress.STOPPED: WAITING,
}
NO_COST = {"hours": 0.0, "unknown": 0}
SHOWN = (TABLE, FIGURE, PAGE)


class _Reported(NamedTuple):
    """A planned job, and the record that it keeps or has left."""

    job: PlannedJob
    record: dict


class StudyStatus:
    """The state of a study's jobs, as often as it is asked for. It reads each result once.

    Args:
        root: The project's folder.
        study: The study's file, relative to `root`; config/config.yaml if None.

    Raises:
        ConfigError: The study is wrong.
    """

    def __init__(self, root: Path, study: str | None = None):
        self.plan: Plan = read_plan(root, study)
        # In the order in which they can run. Predictions count only while they run.
        self.jobs = [job for job in result_jobs(self.plan) if job.kind != PREDICT]
        self._gpus = gpus.available()
        self._store = Store(root)
        self._statuses: dict[str, str] = {}  # path -> how the result ended
        self._costs: dict[tuple[str, ...], dict] = {}  # of jobs, by their paths
        self._costs_at = 0  # how many jobs were done when these were computed

    def now(self) -> dict:
        """The state of the study's jobs at this moment.

        Returns:
            `study`: its file. `kinds`: kind of job -> state -> number of jobs; the states are
            `done`, `running`, `waiting`, `failed`, and `blocked`: the job waits for one that has
            failed. `statuses`: how results ended that did not end well -> number. `running` and
            `failed`: those jobs, each with what it said last. `left`: see `_left`. `documents`:
            how many tables, figures and pages are there (`written`) and planned. `unkept`: the
            runs whose whole model is not kept. `gpus`: see `_gpu_use`.
        """
        records = progress.records(self.plan.root)
        states, statuses = self._states(records)
        by_path = {job.path: job for job in self.jobs}
        reported = [*self._reported(self.jobs, records, states), *self._others(records)]
        running = [each for each in reported if each.record["state"] == progress.RUNNING]
        failed = [each for each in reported if COUNTED_AS[each.record["state"]] == progress.FAILED]
        kinds: dict[str, Counter] = {}
        for path, state in states.items():
            kinds.setdefault(by_path[path].kind, Counter())[state] += 1
        return {
            "study": self.plan.file,
            "kinds": {kind: dict(counts) for kind, counts in kinds.items()},
            "statuses": dict(statuses),
            "running": [_described(each) for each in running],
            "failed": [_described(each) for each in failed],
            "left": self._left(states, running),
            "documents": self._documents(),
            "unkept": unkept(self.plan),
            "gpus": _gpu_use(self._gpus),
        }

    def _states(self, records: dict[str, dict]) -> tuple[dict[str, str], Counter]:
        """Path -> state of every job; and how the results ended that are not ok."""
        states: dict[str, str] = {}
        statuses: Counter = Counter()
        hopeless: set[str] = set()  # paths of jobs that have failed, or wait for one that has
        for job in self.jobs:
            status = self._status(job)
            record = records.get(job.digest)
            if status:
                states[job.path] = DONE
                if status != OK:
                    statuses[status] += 1
                continue
            state = COUNTED_AS[record["state"]] if record else WAITING
            if state == WAITING and not hopeless.isdisjoint(job.inputs):
                state = BLOCKED
            if state in (BLOCKED, progress.FAILED):
                hopeless.add(job.path)
            states[job.path] = state
        return states, statuses

    def _status(self, job: PlannedJob) -> str | None:
        """How the job's result ended; None if the store has none."""
        file = self._store.find(job.place)
        if file is None:
            return None
        if job.path not in self._statuses:  # a store replaces no result
            try:
                self._statuses[job.path] = result.read(file).get("status", OK)
            except (FileNotFoundError, ValueError):  # removed meanwhile, or no result
                return None
        return self._statuses[job.path]

    def _reported(
        self, jobs: Iterable[PlannedJob], records: dict[str, dict], states: dict[str, str]
    ) -> list[_Reported]:
        """The jobs without a result that have a record."""
        return [
            _Reported(job, records[job.digest])
            for job in jobs
            if states.get(job.path) != DONE and job.digest in records
        ]

    def _others(self, records: dict[str, dict]) -> list[_Reported]:
        """The other jobs of the study that have a record: predictions, tables, figures, texts."""
        digests = {job.digest for job in self.jobs}
        if records.keys() <= digests:
            return []  # to build the requests of all documents takes seconds
        predictions = [job for job in result_jobs(self.plan) if job.kind == PREDICT]
        return self._reported([*predictions, *document_jobs(self.plan)], records, {})

    def _documents(self) -> dict[str, int]:
        """The state of the documents that the page needs, the page included."""
        jobs = planned_jobs(self.plan)
        page = next(job.path for job in jobs if job.kind == PAGE)
        jobs = [job for job in required_jobs(jobs, page) if job.kind in SHOWN]
        written = sum(
            all((self.plan.root / path).is_file() for path in job.outputs) for job in jobs
        )
        return {"written": written, "planned": len(jobs)}

    # Time left -----------------------------------------------------------------------------------

    def _left(self, states: dict[str, str], running: list[_Reported]) -> dict:
        """The time that the running and the waiting jobs still take.

        Returns:
            `work_s`: of all jobs together. `wall_s`: until the last one ends, if as many run at
            once as now; None if none runs. `at_once`: how many run now. `unknown`: how many jobs
            have neither a recorded nor a predicted time, so that the times are lower bounds.
        """
        now = time.time()
        left_by_job: list[float] = []
        untold: list[_Reported] = []  # running jobs that say no time left themselves
        for each in running:
            numbers, heard = each.record["numbers"], each.record["heard"]
            if "left_s" in numbers:
                left_by_job.append(max(0.0, numbers["left_s"] - (now - heard)))
            else:
                untold.append(each)
        waiting = [job for job in self.jobs if states[job.path] == WAITING]
        done = sum(state == DONE for state in states.values())
        unknown = 0
        for each in untold:
            expected = self._cost([each.job], done)
            unknown += expected["unknown"]
            ran_s = now - each.record["started"]
            left_by_job.append(max(0.0, expected["hours"] * 3600 - ran_s))
        expected = self._cost(waiting, done)
        work_s = sum(left_by_job) + expected["hours"] * 3600
        at_once = len(running)
        return {
            "work_s": work_s,
            "wall_s": max(*left_by_job, work_s / at_once) if at_once else None,
            "at_once": at_once,
            "unknown": unknown + expected["unknown"],
        }

    def _cost(self, jobs: list[PlannedJob], done: int) -> dict:
        """`rerun_plan.cost`, which reads all results, once for the same jobs and results."""
        if not jobs:
            return NO_COST
        if done != self._costs_at:  # more times are recorded now
            self._costs_at = done
            self._costs.clear()
        key = tuple(job.path for job in jobs)
        if key not in self._costs:
            self._costs[key] = cost(self.plan, jobs, self.jobs)
        return self._costs[key]


def _described(reported: _Reported) -> dict:
    """A job and its record, as JSON."""
    job, record = reported
    now = time.time()
    return {
        "kind": job.kind,
        "name": job.name,
        "state": record["state"],
        "host": record["host"],
        "log": record["log"] or job.log,
        "ran_s": record["heard"] - record["started"],
        "for_s": now - record["started"],
        "silent_s": now - record["heard"],
        "doing": record["doing"],
        "numbers": record["numbers"],
        "reason": record.get("reason", ""),
    }


def _gpu_use(found: list[gpus.Gpu]) -> list[dict]:
    """The use of each GPU by all programs together; None where nvidia-smi does not say."""
    if not found:
        return []
    used, busy = gpus.used_bytes(found), gpus.busy_fractions(found)
    return [
        {
            "uuid": gpu.uuid,
            "name": gpu.name,
            "memory_bytes": gpu.memory_bytes,
            "used_bytes": used.get(gpu.uuid),
            "busy_fraction": busy.get(gpu.uuid),
        }
        for gpu in found
    ]
