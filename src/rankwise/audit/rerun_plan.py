"""`rankwise plan`: which jobs Snakemake would run now, why, and what they will cost.

Which ones is Snakemake's own word (`--summary`), for it decides. Why is read from the results: each carries the request that it
answers, and what differs from the planned one is the reason. Costs are those of earlier runs of the same cell, else of the same
curve, else of the same measurement; a training that has none has its predicted FLOPs at the rates of `budget.py`, if it is
predicted. Standard library only.
"""

import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.core import config, paths, provenance, result
from rankwise.execution import job_memory
from rankwise.study.plan import FOLDERS, MEASUREMENTS, Cell, Plan, study_file

ABSENT = object()
DOWNSTREAM = "made from what runs"
GOES_ON = "goes on from its checkpoint"


class Job(NamedTuple):
    """A planned result."""

    measurement: str
    name: str
    request: dict
    cell: Cell | None  # None of a prepared dataset or model


def plan(root: Path, study: str | None = None) -> dict:
    """`jobs`: those that would run, with reasons; `cost`: what they come to; `planned`: how many results the study has.

    Raises:
        ConfigError: the study is wrong.
        ValueError: Snakemake refuses the workflow; its words.
    """
    file = root / (study or "config/config.yaml")
    asked = _asked(root, file)  # beside this process, which reads the same study meanwhile
    planned = Plan(
        config.read_yaml(file, str(study or "config/config.yaml")),
        root,
        study_file([file], root),
    )
    known = dict(jobs(planned))
    pending = [
        _said(files, status, known.get(files[0]), planned) for files, status in _pending(asked)
    ]
    return {
        "study": planned.file,
        "planned": len(known),
        "jobs": pending,
        "cost": cost(planned, pending, known),
    }


def jobs(plan: Plan) -> Iterator[tuple[str, Job]]:
    """(path, job) of every planned result, prepared inputs last."""
    for measurement in (*FOLDERS, *MEASUREMENTS):
        for cell in plan.cells(measurement):
            yield (
                plan.path(measurement, cell),
                Job(measurement, cell.folder, plan.request(measurement, cell), cell),
            )
    for kind, name in plan.inputs():
        yield plan.input_path(kind, name), Job(kind, name, plan.input_request(kind, name), None)


def stored(path: Path) -> dict:
    """A result as it lies there; nothing where there is none, or half a file."""
    try:
        return result.read(path)
    except (FileNotFoundError, ValueError):
        return {}


def _asked(root: Path, file: Path) -> subprocess.Popen:
    """Snakemake's summary, under way."""
    command = [sys.executable, "-m", "snakemake", "--summary", "--configfile", str(file)]
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _pending(asked: subprocess.Popen) -> list[tuple[list[str], str]]:
    """(files, Snakemake's word) of everything that would be made; files that differ by their ending alone are one.

    Raises:
        ValueError: Snakemake refuses the workflow; its words.
    """
    printed, errors = asked.communicate()
    if asked.returncode:
        raise ValueError(errors.strip() or printed.strip())
    head, *rows = (line.split("\t") for line in printed.splitlines())
    path, status, update = (head.index(name) for name in ("output_file", "status", "plan"))
    found: dict[str, tuple[list[str], str]] = {}
    for row in rows:
        if row[update] != "no update":
            found.setdefault(row[path].rpartition(".")[0], ([], row[status]))[0].append(row[path])
    return list(found.values())


def _said(files: list[str], status: str, job: Job | None, plan: Plan) -> dict:
    """A job that would run, and why; Snakemake's word is all that tells of tables and figures, which carry no request."""
    path, word = Path(files[0]), status if status != "ok" else DOWNSTREAM
    if job is None:
        kind = (
            path.parent.name.rstrip("s") if path.parent.name in ("tables", "figures") else path.stem
        )
        return {"job": kind, "name": path.stem, "files": files, "why": [word]}
    found = stored(plan.root / path)
    why = differences(found["request"], job.request) if found else ["not there yet"]
    begun = (plan.root / paths.checkpoint(provenance.digest(job.request))).is_file()
    return {
        "job": job.measurement,
        "name": job.name,
        "files": files,
        "why": [*(why or [word]), *[GOES_ON] * begun],
    }


def differences(stored: dict, planned: dict) -> list[str]:
    """What makes two requests differ: source files, the lock, prepared inputs, then settings with both values."""
    code = {*stored.get("code", {}).items()} ^ {*planned.get("code", {}).items()}
    found = [
        f"{name} changed" for name in sorted({provenance.source_file(name) for name, _ in code})
    ]
    if stored.get("environment") != planned["environment"]:
        found.append(f"{planned['environment']['lock']} changed")
    before, now = stored.get("inputs", {}), planned.get("inputs", {})
    found += [
        f"{name} prepared anew"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    rest = [config.without(one, ("code", "environment", "inputs")) for one in (stored, planned)]
    return [*found, *_settings(*rest)]


def _settings(stored: object, planned: object, key: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(planned, dict):
        for name in sorted({*stored, *planned}):
            yield from _settings(
                stored.get(name, ABSENT),
                planned.get(name, ABSENT),
                f"{key}.{name}" if key else name,
            )
    elif stored != planned:
        yield f"{key}: {_word(stored)} -> {_word(planned)}"


def _word(value: object) -> str:
    return "nothing" if value is ABSENT else str(value)


# Cost -----------------------------------------------------------------------------------------------------------------


def cost(plan: Plan, pending: list[dict], known: dict[str, Job]) -> dict:
    """Hours of jobs, of those on a GPU, the largest predicted peak; `unknown`: jobs of which nothing tells the time."""
    cells = [
        (one["files"][0], known[one["files"][0]]) for one in pending if one["files"][0] in known
    ]
    times = _recorded(plan, known)
    seconds = {path: _seconds(plan, job, times) for path, job in cells}
    on_gpu = {path for path, job in cells if job.cell and plan.needs_gpu(job.measurement, job.cell)}
    peaks = [
        job_memory.prediction(plan, job.cell).get("peak_bytes", 0)
        for _, job in cells
        if job.measurement in FOLDERS
    ]
    return {
        "hours": sum(filter(None, seconds.values())) / 3600,
        "gpu_hours": sum(seconds[path] or 0 for path in on_gpu) / 3600,
        "peak_bytes": max(peaks, default=0),
        "disk_gib": plan.study["disk_gib"],
        "unknown": sum(value is None for value in seconds.values()),
    }


def _recorded(plan: Plan, known: dict[str, Job]) -> dict[str, list[tuple[Job, float]]]:
    """Measurement -> the results that lie there, and what each job took (s)."""
    found: dict[str, list[tuple[Job, float]]] = {}
    for path, job in known.items():
        if took := stored(plan.root / path).get("environment", {}).get("job_time_s"):
            found.setdefault(job.measurement, []).append((job, took))
    return found


def _seconds(plan: Plan, job: Job, recorded: dict[str, list[tuple[Job, float]]]) -> float | None:
    """From the same cell, else its curve, else a prediction, else the median of its measurement."""
    own = recorded.get(job.measurement, [])
    curve = job.cell and job.cell.curve
    named = [took for one, took in own if one.name == job.name]
    for times in (named, [took for one, took in own if one.cell and one.cell.curve == curve]):
        if times:
            return statistics.median(times)
    predicted = (
        job_memory.predicted_s(plan, job_memory.prediction(plan, job.cell))
        if job.measurement in FOLDERS
        else None
    )
    return predicted or (statistics.median(took for _, took in own) if own else None)


def text(found: dict) -> str:
    """The plan for people: how many jobs of which kind, the reasons with what each one reruns, the cost."""
    kinds = Counter(one["job"] for one in found["jobs"])
    if not kinds:
        return (
            f"{found['study']}: nothing to be done; {found['planned']} results are what is planned"
        )
    lines = [
        f"{found['study']}: {sum(kinds.values())} jobs would run: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
    ]
    reasons: dict[str, Counter] = {}
    for one in found["jobs"]:
        for why in one["why"]:
            reasons.setdefault(why, Counter())[one["job"]] += 1
    lines += [
        f"  {why}: {', '.join(f'{n} {kind}' for kind, n in jobs.items())}"
        for why, jobs in reasons.items()
    ]
    total = found["cost"]
    told = f"about {total['hours']:.2g} h, {total['gpu_hours']:.2g} h of them on a GPU"
    unknown = (
        f"; {total['unknown']} jobs of unknown time (`snakemake predictions` tells more)"
        if total["unknown"]
        else ""
    )
    peak = f"; predicted peak {total['peak_bytes'] / 2**30:.2g} GiB" if total["peak_bytes"] else ""
    return "\n".join([*lines, f"cost: {told}{unknown}{peak}; disk {total['disk_gib']} GiB"])
