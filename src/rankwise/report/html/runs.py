"""The part of every result that the page keeps.

It is enough to say what the result is about, what came out, where it ran and how to make it again.
"""

from rankwise.analysis.tidy import PER_JOB
from rankwise.core import provenance
from rankwise.core.config import without
from rankwise.report import style

MAX_POINTS = 60_000  # of histories, all runs together
MAX_ROWS = 60  # of the table that a result contains
COPIED = ("status", "reason", "split", "metrics", "cost", "selected")
# Parts of requests that many results have in common; the page has each of them once.
SHARED = ("model", "dataset", "method", "schedule", "code", "shapes")


def collected(records: list[dict], labels: dict[str, str]) -> dict[str, dict]:
    """The parts of the results that the page keeps.

    Returns:
        `runs`: digest of the request -> what is kept of the result, its history thinned evenly so
        that all histories together have about `MAX_POINTS` rows. `parts`: digest -> part of a
        request or environment, to which the runs refer.
    """
    parts: dict[str, object] = {}
    histories = sum("history" in record for record in records)
    points_per_run = max(MAX_POINTS // max(histories, 1), 2)
    runs = {}
    for record in records:
        digest = provenance.digest(record["request"])
        runs[digest] = _kept(record, labels, parts, points_per_run)
    return {"runs": runs, "parts": parts}


def _kept(
    record: dict, labels: dict[str, str], parts: dict[str, object], points_per_run: int
) -> dict:
    """The kept part of one result; shared parts are added to `parts`."""
    environment = record["environment"]
    kept = {
        "measurement": record["measurement"],
        "cell": record["cell"],
        "name": _name(record["cell"], labels),
        "path": record["path"],
        "command": _command(record),
        "request": _shared_request(record["request"], parts),
        "environment": _shared(without(environment, PER_JOB), parts),
        "job": {key: _short(environment[key]) for key in PER_JOB if key in environment},
    }
    kept |= {key: record[key] for key in COPIED if record.get(key)}
    if record.get("history"):
        kept["history"] = _columns(record["history"], points_per_run)
    if record.get("rows"):
        kept["rows"] = _columns(record["rows"], MAX_ROWS)
    return kept


def _name(cell: dict, labels: dict[str, str]) -> str:
    parts = [style.curve_name(cell["method"], cell["rank"], labels)]
    if cell.get("trial"):
        parts.append(cell["trial"])
    if "seed" in cell:
        parts.append(f"seed {cell['seed']}")
    if "evaluation" in cell:
        parts.append(cell["evaluation"])
    return ", ".join(parts)


def _command(record: dict) -> str:
    """The command that makes the result again, in another folder."""
    sources, path = record["request"]["code"], record["path"]
    script = next(name for name in sources if name.startswith(provenance.SCRIPT_DIR))
    file = path.rpartition("/")[2]
    return f".venv/bin/python {script} --request @{path} --output again/{file}"


def _shared_request(request: dict, parts: dict[str, object]) -> dict:
    return {
        key: _shared(value, parts) if key in SHARED else value for key, value in request.items()
    }


def _shared(value: object, parts: dict[str, object]) -> dict[str, str]:
    """Add a value to `parts`; returns a reference to it."""
    digest = provenance.digest(value)
    parts[digest] = value
    return {"part": digest}


def _columns(rows: list[dict], most: int) -> dict[str, object]:
    """Rows as column names and lists of values, with the number `of` all rows.

    They are thinned evenly to about `most`; the first and the last row stay.
    """
    step = -(-len(rows) // most)
    names: dict[str, None] = {}  # a dict, for the order of first appearance
    for row in rows:
        names |= dict.fromkeys(row)
    kept = [*rows[:-1][::step], rows[-1]]
    values = [_values(row, list(names)) for row in kept]
    return {"columns": list(names), "rows": values, "of": len(rows)}


def _values(row: dict, names: list[str]) -> list[object]:
    return [_short(row.get(name)) for name in names]


def _short(value: object) -> object:
    # Six digits are more than the page shows, and keep it small.
    return float(f"{value:.6g}") if isinstance(value, float) else value
