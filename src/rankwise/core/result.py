"""One result, one JSON file: written whole or not at all, with the request that it answers."""

import json
import os
from pathlib import Path

STATUSES = ("ok", "out_of_memory", "diverged", "unsupported")
UNITS = (
    "_bytes",
    "_s",
    "_nats",
    "_fraction",
    "_flops",
    "_tokens",
    "_per_s",
    "_per_second",
    "_joules",
    "_watts",
    "_gib",
)
# Quantities whose name is their unit: counts, ratios of losses, norms.
COUNTS = frozenset({
    "accumulation_steps", "batch_size", "best_epoch", "effective_batch_size", "effective_rank", "epoch", "event",
    "gradient_norm", "largest_batch_size", "learning_rate", "method_update_interval_steps", "perplexity", "predictions",
    "processes", "product_effective_rank",
    "refresh_interval_steps", "repeats", "samples", "selection_perplexity", "tokens", "total_parameters",
    "trainable_parameters", "update", "updates",
})  # fmt: skip


LISTS = ("history", "rows", "timeline", "state", "groups")  # of rows


def check_units(columns: dict) -> None:
    """Refuse a number whose name says no unit.

    Raises:
        ValueError: names the column and the endings allowed.
    """
    for name, value in columns.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and name not in COUNTS and not name.endswith(UNITS):
            raise ValueError(
                f"column {name!r} has no unit; allowed endings: {', '.join(UNITS)}; counts: {', '.join(sorted(COUNTS))}"
            )


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: the old file stays until the new one is whole. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write(path: Path, request: dict, result: dict, environment: dict) -> None:
    """Write the result of a job: `status`, `metrics` (reproducible), `cost` (times, never compared), `history` by epoch.

    `examples` has a list for each quantity: a value an example of the reported split.
    """
    if result.get("status", "ok") not in STATUSES:
        raise ValueError(f"status {result['status']!r}, allowed: {', '.join(STATUSES)}")
    rows = [row for name in LISTS for row in result.get(name, [])]
    first = {name: values[0] for name, values in result.get("examples", {}).items()}
    for columns in (result.get("metrics", {}), result.get("cost", {}), first, *rows):
        check_units(columns)
    write_json(path, {"status": "ok", **result, "request": request, "environment": environment})


def read(path: Path) -> dict:
    """A result as it was written."""
    return json.loads(path.read_text(encoding="utf-8"))
