"""`rankwise trace`: the runs behind a figure, a table, a cell of one, a claim or the report, from the files that lie there.

    results/figures/memory.png                                        a file that the study plans
    results/tables/runs.csv:3                                         its line 3, as an editor counts: line 1 is the heading
    results/tables/summary.csv:method=lora,rank=8                     rows by column=value; a method by its name or label
    results/tables/summary.csv:method=lora,rank=8:accuracy_percent    one column of them
    results/claims.csv:a_optimizer_memory_adamw                       a row by what its first column says: a claim

Standard library only.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.audit import lineage, staleness, table_rows
from rankwise.core import provenance, result, units
from rankwise.core.config import ConfigError, read_yaml
from rankwise.study import claims, outputs, text_outputs
from rankwise.study.measurements import PREDICT
from rankwise.study.plan import FOLDERS, MEASUREMENTS, RESULTS, Plan

TARGET = re.compile(r"(?P<file>[^:]+)(:(?P<row>.+?))?(:(?P<column>\w+))?")


class Job(NamedTuple):
    """A planned result: what it measures, where it lies, the request that it should answer, and its cell."""

    measurement: str
    path: str
    request: dict
    cell: dict


def trace(text: str, root: Path, study: str | None = None) -> dict:
    """`runs` behind a target, their `sources` (those that differ now in `changed`), `notes`, and the `command` that builds it.

    Raises:
        ConfigError: no study plans the file (names the nearest), or it has no such row or column (names those it has).
    """
    target = TARGET.fullmatch(text)
    if target is None:
        raise ConfigError("rankwise trace", "target", text, "FILE, FILE:ROW or FILE:ROW:COLUMN")
    file, row, column = str(Path(target["file"])), target["row"], target["column"]
    plan = _plan(root, study, file, row, column)
    jobs = _jobs(plan, file, row, column)
    sources = {}
    runs = [_run(job, plan, sources) for job in jobs]
    files = {name: digest for code in sources.values() for name, digest in code.items()}
    return {
        "target": text,
        "study": plan.file,
        "command": text_outputs.command(plan, file),
        "notes": [
            *staleness.notes(plan, file, root),
            *([] if jobs else [f"no run of {plan.file} is behind it"]),
        ],
        "runs": runs,
        "sources": sources,
        "changed": sorted(name for name, digest in files.items() if _now(root / name) != digest),
    }


def _plan(root: Path, study: str | None, file: str, row: str | None, column: str | None) -> Plan:
    """The study that is named; otherwise, of those that plan the file, the one whose results lie there."""
    paths = sorted(
        (root / "config").glob("*.yaml"), key=lambda path: (path.name != "config.yaml", path.name)
    )
    read = {
        name: read_yaml(root / name, name)
        for name in ([study] if study else [f"config/{path.name}" for path in paths])
    }
    known, ready = {}, []
    for plan in (
        Plan(found, root, name) for name, found in read.items() if study or "question" in found
    ):
        targets = dict.fromkeys(outputs.targets(plan))
        known |= targets
        if file in targets:
            ready.append((_there(plan, file, row, column), plan))
            if ready[-1][0] == (1, True, 1):
                break
    if not ready:
        near = difflib.get_close_matches(file, known, n=3, cutoff=0.5)
        where = study or "config/*.yaml"
        raise ConfigError(
            where,
            "target",
            file,
            f"files that the study plans, nearest: {', '.join(near) or 'none'}",
        )
    return max(ready, key=lambda one: one[0])[1]


def _there(plan: Plan, file: str, row: str | None, column: str | None) -> tuple[float, bool, float]:
    """The share of the results asked for that lies there, whether the study has any, and the share of those behind the file."""
    asked = _jobs(plan, file, row, column)
    return _share(asked, plan.root), bool(asked), _share(_jobs(plan, file), plan.root)


def _share(jobs: list[Job], root: Path) -> float:
    """Of these results, the share that lies there."""
    return sum((root / job.path).is_file() for job in jobs) / max(len(jobs), 1)


# Which runs -----------------------------------------------------------------------------------------------------------


def _jobs(plan: Plan, file: str, row: str | None = None, column: str | None = None) -> list[Job]:
    """The planned results behind a file, or behind some of its rows."""
    if lineage.is_result(file):
        known = [
            *(job for name in (*FOLDERS, *MEASUREMENTS, PREDICT) for job in _measured(plan, name)),
            *_inputs(plan),
        ]
        below = f"{Path(file).parent}/"  # the choice of a search lies above its trials
        return [job for job in known if job.path == file] or [
            job for job in known if job.path.startswith(below)
        ]
    tables = lineage.tables(plan, file)
    if row is None:
        return [job for name in dict.fromkeys(tables.values()) for job in _measured(plan, name)]
    labels, table = dict(outputs.labels(plan)), str(Path(file).with_suffix(".csv"))
    rows = table_rows.rows(plan.root / table, table, row, column, labels)
    known = claims.expand(plan.library["claims"])
    if named := [known[one["claim"]] for one in rows if one.get("claim") in known]:
        return [job for claim in named for job in _deciding(plan, claim)]
    if column and len(tables) > 1:
        headers = {
            name: table_rows.read(plan.root / f"{RESULTS}/tables/{name}.csv")[0] for name in tables
        }
        quantity = (
            rows[0]["cost"] if column == "amount" else column
        )  # `amount` is of what `cost` says
        name = units.of_column(quantity, headers)
        tables = {name: tables[name]}
    jobs = (job for name in dict.fromkeys(tables.values()) for job in _measured(plan, name))
    return [job for job in jobs if any(_is_of(one, job.cell, labels) for one in rows)]


def _deciding(plan: Plan, claim: dict) -> Iterator[Job]:
    """The results that a claim is decided from: its cell, the corrected one, and what that is compared with."""
    if "table" in claim:
        others = claim.get("corrected_cell", {}), claim.get("against", {}).get("cell", {})
        cells = [{**claim["cell"], **other} for other in ({}, *others)]
        for measurement in dict.fromkeys(lineage.measured(plan, [claim["table"]]).values()):
            yield from (
                job
                for job in _measured(plan, measurement)
                if any(cell.items() <= job.cell.items() for cell in cells)
            )


def _measured(plan: Plan, measurement: str) -> Iterator[Job]:
    for cell in plan.cells(measurement):
        request = plan.request(measurement, cell)
        yield Job(measurement, plan.path(measurement, cell), request, request["cell"])


def _inputs(plan: Plan) -> Iterator[Job]:
    for kind, name in plan.inputs():
        yield Job(
            f"prepare {kind}",
            plan.input_path(kind, name),
            plan.input_request(kind, name),
            {kind: name},
        )


def _is_of(row: dict[str, str], cell: dict, labels: dict[str, str]) -> bool:
    """Whether a table's row is made of a cell: every part of the cell that the row names is the same; a row may name two."""
    pairs = [("method", "rank"), *((f"method_{side}", f"rank_{side}") for side in "ab")]
    curves = [(row[method], row[rank]) for method, rank in pairs if row.get(method)]
    own = [(name, str(cell["rank"])) for name in (cell["method"], labels[cell["method"]])]
    rest = all(
        _same(row[name], cell.get(name))
        for name in ("model", "dataset", "trial", "seed")
        if row.get(name)
    )
    return rest and (
        not curves or any((method, f"{float(rank or 0):.0f}") in own for method, rank in curves)
    )


def _same(text: str, value: object) -> bool:
    """A profile has no seed, so it is behind the rows of all."""
    return value is None or text == str(value)


# What lies there ------------------------------------------------------------------------------------------------------


def _run(job: Job, plan: Plan, sources: dict[str, dict]) -> dict:
    """What a result says about itself; its sources go into `sources`, under their digest."""
    planned, path = provenance.digest(job.request), plan.root / job.path
    run = {"run": planned, "result": job.path, "measurement": job.measurement, "cell": job.cell}
    if not path.is_file():
        return {**run, "status": "not there", "command": text_outputs.command(plan, job.path)}
    stored = result.read(path)
    request = stored["request"]
    code = {provenance.source_file(name): digest for name, digest in request["code"].items()}
    sources[provenance.digest(code)] = code
    script = next(name for name in code if name.startswith(provenance.SCRIPT_DIR))
    run["run"] = provenance.digest(request)
    if run["run"] != planned:
        run["stale"] = f"{plan.file} now plans {planned}"
    return {
        **run,
        "status": stored["status"],
        **({"reason": stored["reason"]} if "reason" in stored else {}),
        "inputs": request.get("inputs", {}),
        "sources": provenance.digest(code),
        "environment": _environment(stored),
        "command": f".venv/bin/python {script} --request @{job.path} --output again/{path.name}",
    }


def _environment(stored: dict) -> dict:
    """Lock, interpreter, packages and device (cpu where none was asked for); its name only where the result has it."""
    request, lock = stored["request"], stored["request"]["environment"]
    device = stored.get("device") or request.get("device", "cpu")
    if device == "cuda" and not request.get("measured", request.get("measurement") != "fits"):
        device = "cpu, predicting cuda"
    named = [part.get("device_name") for part in (stored.get("cost", {}), *stored.get("rows", []))]
    name = next(({"device_name": one} for one in named if one), {})
    return {
        "lock": lock["lock"],
        "lock_digest": lock["digest"],
        "device": device,
        **name,
        **stored["environment"],
    }


def _now(path: Path) -> str | None:
    return provenance.code_digest(path) if path.is_file() else None
