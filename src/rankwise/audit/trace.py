"""`rankwise trace`: the runs behind a figure, a table, a cell of one, a claim or the report.

    results/figures/memory.png                                        a file that the study plans
    results/tables/runs.csv:3                                         its line 3; line 1 is the
    heading results/tables/summary.csv:method=lora,rank=8                     rows by column=value;
    a method by name or label results/tables/summary.csv:method=lora,rank=8:accuracy_percent    one
    column of them results/claims.csv:a_optimizer_memory_adamw                       a row by its
    first column: a claim

Standard library only.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.audit import staleness
from rankwise.audit.rerun_plan import same_cell
from rankwise.audit.target_jobs import cell_names, jobs_behind
from rankwise.core import provenance, requests, result
from rankwise.core.config import ConfigError, library, read_yaml
from rankwise.core.store import Store
from rankwise.study import jobs, text_outputs
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import Plan

CELL = re.compile(r"[^/:]+/[^/:]+/[^/:]+/r\d+/seed\d+")
PATTERN = re.compile(r"(?P<file>[^:]+)(:(?P<row>.+?))?(:(?P<column>\w+))?")
MAIN_STUDY = (
    "config.yaml"  # of the studies that plan a file and have no results of it, this one is meant
)


SHOWN_RUNS = 3  # named in a sentence


class Target(NamedTuple):
    """The subject of a trace: a file, or some rows of a table, or one column of these rows."""

    file: str
    row: str | None
    column: str | None


def trace(text: str, root: Path, study: str | None = None) -> dict:
    """The runs behind a target.

    Args:
        text: FILE, FILE:ROW or FILE:ROW:COLUMN, as in the module's docstring.
        root: The project's folder.
        study: The study's file, relative to `root`; if None, the study whose results exist.

    Returns:
        `runs` behind the target; the `sources` of all runs, by digest; which sources have `changed`
        since; `notes` on what is outdated; the `command` that builds the file.

    Raises:
        ConfigError: no study plans the file (the message names the nearest one), or the file has no
            such row or column (the message names those that it has).
    """
    target = _target(text)
    passed_over: list[str] = []
    plan = _plan(root, study, target, passed_over)
    target = target._replace(file=jobs.targets(plan)[target.file])
    planned = jobs_behind(plan, *target)
    sources: dict[str, dict[str, str]] = {}
    found = Found(Store(root), staleness.shown_ids(plan, target.file, root))
    runs = [_run(job, plan, found, sources) for job in planned]
    notes = [*staleness.notes(plan, target.file, root), *passed_over]
    if not planned:
        notes.append(f"no run of {plan.file} is behind it")
    return {
        "target": text,
        "study": plan.file,
        "command": text_outputs.command(plan, target.file),
        "notes": notes,
        "runs": runs,
        "sources": sources,
        "changed": _changed(sources, root),
    }


def training_run(text: str, root: Path, study: str | None = None) -> tuple[Plan, PlannedJob]:
    """The one training run that a text names.

    Args:
        text: A cell, `MODEL/DATASET/METHOD/rRANK/seedSEED`, or a target of `trace` with one
            training run behind it.
        root: The project's folder.
        study: The study's file, relative to `root`; if None, the study whose results exist.

    Raises:
        ConfigError: No study plans it, or several training runs are behind it.
    """
    passed_over: list[str] = []
    target = _target(_file_of_cell(text, root, study) if CELL.fullmatch(text) else text)
    plan = _plan(root, study, target, passed_over)
    target = target._replace(file=jobs.targets(plan)[target.file])
    runs = [job for job in jobs_behind(plan, *target) if job.kind == "train"]
    if len(runs) != 1:
        names = ", ".join(job.name for job in runs[:SHOWN_RUNS]) or "none"
        more = f" and {len(runs) - SHOWN_RUNS} more" if len(runs) > SHOWN_RUNS else ""
        raise ConfigError(
            plan.file, "CELL", text, f"one training run; {len(runs)} are behind it: {names}{more}"
        )
    return plan, runs[0]


def _file_of_cell(cell: str, root: Path, study: str | None) -> str:
    """The result of a cell's training run, in the study that has it.

    Raises:
        ConfigError: No study trains the cell.
    """
    known: dict[str, str] = {}  # cell -> the file of its result, in the first study that has one
    passed_over: list[str] = []
    for plan, _ in _plans(root, study, passed_over):
        for job in jobs.cell_jobs(plan, "train"):
            is_there = (root / job.path).is_file()
            if job.name not in known or (is_there and not (root / known[job.name]).is_file()):
                known[job.name] = job.path
    if cell not in known:
        near = difflib.get_close_matches(cell, known, n=3, cutoff=0.5)
        allowed = f"cells that the study trains, nearest: {', '.join(near) or 'none'}"
        raise ConfigError(
            study or "config/*.yaml", "CELL", cell, "; ".join([allowed, *passed_over])
        )
    return known[cell]


def _target(text: str) -> Target:
    match = PATTERN.fullmatch(text)
    if match is None:
        allowed = "FILE, FILE:ROW or FILE:ROW:COLUMN"
        raise ConfigError("rankwise trace", "target", text, allowed)
    return Target(str(Path(match["file"])), match["row"], match["column"])


def _changed(sources: dict[str, dict[str, str]], root: Path) -> list[str]:
    """The source files that no longer have the digest that a run was made with."""
    changed = set()
    for digests in sources.values():
        for name, digest in digests.items():
            if provenance.shown_digest(name, root, digest) != digest:
                changed.add(name)
    return sorted(changed)


# Which study --------------------------------------------------------------------------------------


def _plan(root: Path, study: str | None, target: Target, passed_over: list[str]) -> Plan:
    """The named study; or else, of the studies that plan the file, the most complete one.

    A note on each study that cannot be read is added to `passed_over`.
    """
    known_files: dict[str, None] = {}
    best: tuple[tuple[float, bool, float], Plan] | None = None
    for plan, files in _plans(root, study, passed_over):
        known_files |= files
        if target.file not in files:
            continue
        completeness = _completeness(plan, target._replace(file=files[target.file]))
        if best is None or completeness > best[0]:
            best = completeness, plan
        if completeness == (1, True, 1):  # no other study can have more
            break
    if best is None:
        near = difflib.get_close_matches(target.file, known_files, n=3, cutoff=0.5)
        allowed = f"files that the study plans, nearest: {', '.join(near) or 'none'}"
        allowed = "; ".join([allowed, *passed_over])
        raise ConfigError(study or "config/*.yaml", "target", target.file, allowed)
    return best[1]


def _plans(
    root: Path, study: str | None, passed_over: list[str]
) -> Iterator[tuple[Plan, dict[str, str]]]:
    """The named study, or every study in config/, the main one first, each with its files.

    If no study is named, one that cannot be read stops nothing: a note is added to `passed_over`.
    """
    if study:
        plan = Plan(read_yaml(root / study, study), root, study)
        yield plan, jobs.targets(plan)
        return
    library(root)  # a broken entry is told as that, and not once for each study
    names = sorted(path.name for path in (root / "config").glob("*.yaml"))
    names.sort(key=lambda name: name != MAIN_STUDY)
    for name in names:
        file = f"config/{name}"
        try:
            content = read_yaml(root / file, file)
            if "question" not in content:  # config/ has the library's files, too
                continue
            plan = Plan(content, root, file)
            files = jobs.targets(plan)
        except (ValueError, OSError) as error:
            passed_over.append(f"{file} is passed over, since it cannot be planned: {error}")
            continue
        yield plan, files


def _completeness(plan: Plan, target: Target) -> tuple[float, bool, float]:
    """How much a study has of a target.

    Returns:
        The share of the results behind the target that exist; whether the study plans any; and the
        share of the results behind the whole file that exist.
    """
    behind_target = jobs_behind(plan, *target)
    behind_file = jobs_behind(plan, target.file)
    shares = _share_stored(behind_target, plan.root), _share_stored(behind_file, plan.root)
    return shares[0], bool(behind_target), shares[1]


def _share_stored(planned: list[PlannedJob], root: Path) -> float:
    if not planned:
        return 0.0
    return sum((root / job.path).is_file() for job in planned) / len(planned)


# What a result says about itself ------------------------------------------------------------------


class Found(NamedTuple):
    """Where results are, and the ids of the runs that the tables behind the target show."""

    store: Store
    shown: set[str]

    def result(self, job: PlannedJob) -> Path | None:
        """The planned result, or else the one of its cell that the tables show; None without."""
        planned = self.store.find(job.place)
        if planned:
            return planned
        others = same_cell(job, self.store)
        return next((file for file in others if file.parent.name in self.shown), None)


def _run(job: PlannedJob, plan: Plan, found: Found, sources: dict[str, dict[str, str]]) -> dict:
    """One run. The digests of its source files are added to `sources`, by their own digest."""
    file = found.result(job)
    run = {
        "run": job.digest,
        "result": job.path,
        "measurement": f"prepare {job.kind}" if job.prepares_input else job.kind,
        "cell": cell_names(job),
    }
    if file is None:
        command = text_outputs.command(plan, job.path)
        return {**run, "status": "not there", "command": command}
    stored = result.read(file)
    request = stored["request"]
    code = {provenance.source_file(name): digest for name, digest in request["code"].items()}
    sources_id = provenance.digest(code)
    sources[sources_id] = code
    if file.parent.name != job.digest:
        in_project = file.is_relative_to(plan.root)
        run |= {
            "run": file.parent.name,
            "result": str(file.relative_to(plan.root) if in_project else file),
            "stale": f"{plan.file} now plans {job.digest}",
        }
    run["status"] = stored["status"]
    if "reason" in stored:
        run["reason"] = stored["reason"]
    return {
        **run,
        "inputs": request.get("inputs", {}),
        "sources": sources_id,
        "environment": _environment(stored),
        "command": requests.rebuild_command(request, run["result"]),
    }


def _environment(stored: dict) -> dict:
    """Where a result was made: lock, interpreter, packages and device."""
    request, lock = stored["request"], stored["request"]["environment"]
    device = stored.get("device") or request.get("device", "cpu")
    # Without `measured` in the request, every profile but `fits` measures.
    measured = request.get("measured", request.get("measurement") != "fits")
    if device == "cuda" and not measured:
        device = "cpu, predicting cuda"
    device_name = _device_name(stored)
    return {
        "lock": lock["lock"],
        "lock_digest": lock["digest"],
        "device": device,
        **({"device_name": device_name} if device_name else {}),
        **stored["environment"],
    }


def _device_name(stored: dict) -> str | None:
    """The name of the device, which some results have in their cost and others in their rows."""
    for part in (stored.get("cost", {}), *stored.get("rows", [])):
        if part.get("device_name"):
            return part["device_name"]
    return None
