"""What the page keeps of every result: enough to say what it was, what came out, where it ran and how to make it again."""

from rankwise.analysis.tidy import PER_JOB
from rankwise.core import provenance
from rankwise.core.config import without
from rankwise.report import style

POINTS = 8_000  # of histories, all runs together
ROWS = 60  # of a result's own table
SHARED = (
    "model",
    "dataset",
    "method",
    "schedule",
    "code",
    "shapes",
)  # parts of requests that many results have in common


def collected(results: list[dict], labels: dict[str, str]) -> dict[str, dict]:
    """`runs`: id -> result, with references into `parts`: digest -> a request's part or an environment, each kept once."""
    parts: dict[str, object] = {}
    most = max(POINTS // max(sum("history" in one for one in results), 1), 2)
    runs = {provenance.digest(one["request"]): _kept(one, labels, parts, most) for one in results}
    return {"runs": runs, "parts": parts}


def _kept(one: dict, labels: dict[str, str], parts: dict, most: int) -> dict:
    request, cell = one["request"], one["request"]["cell"]
    script = next(name for name in request["code"] if name.startswith(provenance.SCRIPT_DIR))
    name = one["path"].rpartition("/")[2]
    kept = {
        "measurement": one["measurement"],
        "cell": cell,
        "name": ", ".join(
            filter(
                None,
                [style.curve_name(cell["method"], cell["rank"], labels), cell.get("trial"), _seed(cell)],
            )
        ),
        "path": one["path"],
        "command": f".venv/bin/python {script} --request @{one['path']} --output again/{name}",
        "request": {
            key: _shared(value, parts) if key in SHARED else value for key, value in request.items()
        },
        "environment": _shared(without(one["environment"], PER_JOB), parts),
        "job": {
            key: _short(one["environment"][key]) for key in PER_JOB if key in one["environment"]
        },
        **{
            key: one[key]
            for key in ("status", "reason", "split", "metrics", "cost", "selected")
            if one.get(key)
        },
    }
    return kept | {
        key: _columns(one[key], count)
        for key, count in (("history", most), ("rows", ROWS))
        if one.get(key)
    }


def _seed(cell: dict) -> str:
    return f"seed {cell['seed']}" if "seed" in cell else ""


def _shared(value: object, parts: dict[str, object]) -> dict[str, str]:
    digest = provenance.digest(value)
    parts[digest] = value
    return {"part": digest}


def _columns(rows: list[dict], most: int) -> dict[str, list]:
    """A list of rows as columns and values, evenly thinned to about `most`; the first and last row stay."""
    step = -(-len(rows) // most)
    kept = [*rows[:-1][::step], rows[-1]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {
        "columns": names,
        "rows": [[_short(row.get(name)) for name in names] for row in kept],
        "of": len(rows),
    }


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
