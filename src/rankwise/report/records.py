"""Totals over the results of a study: statuses, devices, environments, hours and disk space.

A record is a result file as a dictionary, with its `measurement`, `path` and `cell` added: the cell
as tables name it.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rankwise.analysis.tidy import place
from rankwise.core import result, store
from rankwise.core.keys import CURVE
from rankwise.study.jobs import input_jobs, requested_jobs
from rankwise.study.plan import Plan

UNKNOWN = "not recorded"
# Costs of a job that are parts of its wall clock; none is part of another.
TIMES = ("train_time_s", "evaluation_time_s", "start_time_s", "evaluate_time_s")


class Hours(NamedTuple):
    """Hours of the jobs on one device: wall clock, on a GPU once for each GPU that a job takes.

    Attributes:
        hours: their sum over the jobs that record their time.
        timed: how many jobs record their time.
        jobs: how many jobs there are.
    """

    hours: float
    timed: int
    jobs: int


class Records:
    """A study with everything that a page about it is made from.

    Attributes:
        request: the request of the page.
        plan: the study's plan.
        frames: tables of findings by name, as far as the study has them.
        results: the records of all results.
        runs: the records of training runs.
        seeds: the random seeds of the training runs, sorted.
        inputs: the records of the prepared inputs that exist, by (kind, name).
        disk: bytes on disk of `inputs` and `results`.
    """

    def __init__(self, request: dict, plan: Plan, root: Path, frames: dict[str, pd.DataFrame]):
        self.request, self.plan, self.frames = request, plan, frames
        self.results = read_results(plan, root)
        self.runs = [record for record in self.results if record["measurement"] == "train"]
        self.seeds = sorted({cell.seed for cell in plan.cells("train")})
        self.inputs = read_inputs(plan, root)
        self.disk = disk_bytes(plan, root)

    def used(self, kind: str) -> dict[str, dict]:
        """Entries of the study's models, datasets or methods, by name."""
        return self.request[kind]

    def unlicensed(self, kind: str) -> list[str]:
        """Names of the models or datasets whose entry names no licence."""
        return [name for name, entry in self.used(kind).items() if "licence" not in entry]

    def runs_by_curve(self) -> dict[tuple, list[dict]]:
        """The training runs of each (model, dataset, method, rank)."""
        by_curve: dict[tuple, list[dict]] = {}
        for record in self.runs:
            curve = tuple(record["cell"][name] for name in CURVE)
            by_curve.setdefault(curve, []).append(record)
        return by_curve


# Reading ---------------------------------------------------------------------------------------


def read_results(plan: Plan, root: Path) -> list[dict]:
    """The records of all results of the study.

    Raises:
        StoreError: A result answers another request than the planned one.
    """
    records = []
    for job in requested_jobs(plan):
        content = store.check_answers(root / job.path, job.digest)
        planned = {"measurement": job.kind, "path": job.path, "cell": job.cell.columns}
        records.append({**content, **planned})
    return records


def read_inputs(plan: Plan, root: Path) -> dict[tuple[str, str], dict]:
    """The records of prepared inputs by (kind, name).

    An input may be deleted once nothing reads it any more; then it is left out.
    """
    records = {}
    for job in input_jobs(plan):
        path = root / job.path
        if path.is_file():
            records[job.kind, job.name] = result.read(path)
    return records


def disk_bytes(plan: Plan, root: Path) -> dict[str, int]:
    """Bytes on disk of the study's prepared `inputs` and of its `results`."""
    inputs = 0
    for job in input_jobs(plan):
        folder = (root / job.path).resolve().parent
        inputs += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    results = sum((root / job.path).stat().st_size for job in requested_jobs(plan))
    return {"inputs": inputs, "results": results}


# Summaries -------------------------------------------------------------------------------------


def status_counts(records: list[dict]) -> dict[str, Counter]:
    """For each measurement, how many of its results have each status."""
    counts: dict[str, Counter] = {}
    for record in records:
        counts.setdefault(record["measurement"], Counter())[record["status"]] += 1
    return counts


def device_of(record: dict) -> str:
    """The device that a job ran on.

    A job that predicts from shapes runs on the CPU, even if it predicts for a GPU.
    """
    predicts = record["measurement"] == "fits" or record["request"].get("measured") is False
    if predicts:
        return "cpu"
    return record.get("device") or record["request"].get("device", "cpu")


def device_names(records: list[dict]) -> dict[str, list[str]]:
    """Devices that jobs ran on, with the names that the results record for them, if any."""
    names: dict[str, list[str]] = {}
    for record in records:
        own = names.setdefault(device_of(record), [])
        for part in (record.get("cost", {}), *record.get("rows", [])):
            if "device_name" in part and part["device_name"] not in own:
                own.append(part["device_name"])
    return names


def environments(records: list[dict]) -> list[tuple[dict, int]]:
    """Each environment that results were made in, with its lock, and how many were."""
    distinct: list[dict] = []
    counts: list[int] = []
    for record in records:
        environment = place(record)
        if environment in distinct:
            counts[distinct.index(environment)] += 1
        else:
            distinct.append(environment)
            counts.append(1)
    return list(zip(distinct, counts, strict=True))


def hours_by_device(records: list[dict]) -> dict[str, Hours]:
    """Hours of the jobs on each device: trainings with their starts, and evaluations."""
    times: dict[str, list[float]] = {}
    job_counts: Counter = Counter()
    for record in records:
        device, cost = device_of(record), record.get("cost", {})
        job_counts[device] += 1
        own_times = times.setdefault(device, [])
        recorded = [cost[name] for name in TIMES if name in cost]
        if recorded:
            own_times.append(sum(recorded) * (_processes(record) if device == "cuda" else 1))
    return {
        device: Hours(sum(seconds) / 3600, len(seconds), job_counts[device])
        for device, seconds in times.items()
    }


def _processes(record: dict) -> int:
    """How many processes a job has; on a GPU each takes one."""
    return record["request"].get("schedule", {}).get("processes", 1)


def peak_bytes(records: list[dict]) -> float | None:
    """The largest peak that the allocator of a training run recorded, if any did."""
    costs = [record.get("cost", {}) for record in records]
    return max(
        (cost["peak_allocated_bytes"] for cost in costs if "peak_allocated_bytes" in cost),
        default=None,
    )


# Texts -----------------------------------------------------------------------------------------


def source(entry: dict) -> str:
    """Where a model or dataset comes from: a hub's revision, files' SHA-256, or a random seed."""
    weights = entry.get("weights", entry)
    if "hub" in weights:
        hub = weights["hub"]
        if not isinstance(hub, dict):
            hub = {"repo": hub, "revision": weights["revision"]}
        return f"hub, {hub['repo']} at {hub['revision']}"
    if "files" in weights:
        files = weights["files"]
        folder = files if isinstance(files, str) else files["folder"]
        checksums = [weights.get("sha256")]
        checksums += [split.get("sha256") for split in entry.get("splits", {}).values()]
        known = dict.fromkeys(checksum for checksum in checksums if checksum)
        return f"files in {folder}, SHA-256 {listed(known)}"
    if "generated" in entry:
        return f"generated, {entry['generated']['kind']}, seed {entry['generated']['seed']}"
    if "pretrain" in weights:
        return f"pre-trained here on {weights['pretrain']['dataset']}"
    return "shapes only, no weights"


def table(heads: tuple[str, ...], rows: Iterable[tuple]) -> list[str]:
    """The lines of a Markdown table, and the empty line after it."""
    lines = [heads, ["---"] * len(heads)]
    lines += [_escaped(row) for row in rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _escaped(row: tuple) -> list[str]:
    return [str(value).replace("|", r"\|").replace("\n", " ") for value in row]


def listed(values: Iterable[object], none: str = UNKNOWN) -> str:
    """`a, b, c`, or the text `none` without values."""
    return ", ".join(map(str, values)) or none


def overlap_text(prepared: dict, split: str) -> str:
    """How many texts of a split are also in train, letter by letter and normalised.

    Args:
        prepared: the record of the dataset; empty if it is not prepared here.
        split: the name of the split.
    """
    for row in prepared.get("data", {}).get("overlap", []):
        if row["split"] == split:
            exact, normalised = f"{row['exact_rows']:,}", f"{row['normalised_rows']:,}"
            return f"{exact} of {row['compared_rows']:,} {row['compared']}; {normalised} normalised"
    return UNKNOWN
