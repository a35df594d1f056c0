"""One result, one JSON file: written whole or not at all, with the request that it answers."""

import json
from pathlib import Path

from rankwise.core import sealed
from rankwise.core.files import durable_write

STATUSES = ("ok", "out_of_memory", "diverged", "unsupported")
# How the name of a number must end, unless it is one of COUNTS.
UNITS = (
    "_bytes", "_s", "_nats", "_fraction", "_flops", "_tokens", "_per_s", "_per_second", "_joules",
    "_watts", "_gib", "_rows", "_correlation", "_score",
)  # fmt: skip
# Quantities whose name is their unit: counts, ratios of losses, norms, and the label of an example
# (`label`, `predicted`), which has the unit of the data.
COUNTS = frozenset({
    "accumulation_steps", "batch_size", "best_epoch", "bits_per_byte", "effective_batch_size",
    "effective_rank",
    "epoch", "event", "gradient_norm", "label", "labelled", "largest_batch_size", "learning_rate",
    "mean_squared_error", "method_update_interval_steps", "named", "perplexity", "predicted",
    "predictions", "processes", "product_effective_rank", "refresh_interval_steps", "repeats",
    "right", "rows", "samples", "selection_bits_per_byte", "selection_mean_squared_error",
    "selection_perplexity", "selection_word_perplexity", "skipped_updates",
    "start_samples", "tokens", "total_parameters", "trainable_parameters", "update", "updates",
    "word_perplexity", "words",
})  # fmt: skip
LISTS = (
    "history",
    "rows",
    "timeline",
    "state",
    "groups",
)  # keys of a result that hold lists of rows


def check_units(columns: dict) -> None:
    """Check that the name of every number says its unit.

    Raises:
        ValueError: A name does not; the message has it and the allowed endings.
    """
    for name, value in columns.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in COUNTS and not name.endswith(UNITS):
            raise ValueError(
                f"column {name!r} has no unit; allowed endings: {', '.join(UNITS)}; "
                f"counts: {', '.join(sorted(COUNTS))}"
            )


def write_json(path: Path, value: object, sync: bool = True) -> None:
    """Write JSON atomically: the old file stays until the new one is whole.

    Args:
        path: The file.
        value: What it will hold.
        sync: As in `durable_write`.

    Raises:
        ValueError: The value holds nan or infinity, which JSON cannot express.
    """
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", sync)


def write_text(path: Path, text: str, sync: bool = True) -> None:
    """Write a text file whole or not at all, and its folder where that is missing.

    Args:
        path: The file.
        text: What it will hold.
        sync: As in `durable_write`.

    Raises:
        CannotWrite: The disk is full, or cannot be written.
    """
    with durable_write(path, sync) as part:
        part.write_text(text, encoding="utf-8")


def write(path: Path, request: dict, result: dict, environment: dict) -> None:
    """Write the result of a job.

    Args:
        path: The result's file.
        request: What the job was asked; stored with the result.
        result: `status` (ok if not given), `metrics` (reproducible), `cost` (times, never
            compared), lists of rows such as `history`, `data` (name -> list of rows), and
            `examples`: a list for each quantity, with a value for each example of the reported
            split.
        environment: Where the job ran; stored with the result.

    Raises:
        ValueError: The status is unknown, or a number's name says no unit.
    """
    status = result.get("status", "ok")
    if status not in STATUSES:
        raise ValueError(f"status {status!r}, allowed: {', '.join(STATUSES)}")
    check_units(result.get("metrics", {}))
    check_units(result.get("cost", {}))
    check_units({name: values[0] for name, values in result.get("examples", {}).items()})
    lists = [result.get(name, []) for name in LISTS]
    for rows in [*lists, *result.get("data", {}).values()]:
        for row in rows:
            check_units(row)
    content = {"status": "ok", **result, "request": request, "environment": environment}
    write_text(path, sealed.text(content))


def read(path: Path) -> dict:
    """Read a result as it was written.

    Raises:
        Damaged: The file is not as it was written.
        OSError: It is not there or cannot be read.
    """
    return sealed.read(path)


def read_json(path: Path) -> dict:
    """Read what `write_json` wrote.

    Raises:
        ValueError: The file is not JSON.
        OSError: It is not there or cannot be read.
    """
    return json.loads(path.read_text(encoding="utf-8"))
