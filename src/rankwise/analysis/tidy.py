"""Results become tidy tables: one row a result, or a row for each item of a list in it. What was not planned is refused."""

import json
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from rankwise.core import provenance, result
from rankwise.core.config import without
from rankwise.study import search_choice

CELL = ("model", "dataset", "method", "rank", "seed")
CURVE = CELL[:-1]
SELECTION = {
    "eval_loss_nats": "selection_loss_nats",
    "accuracy_fraction": "selection_accuracy_fraction",
    "perplexity": "selection_perplexity",
}  # what a trial's metrics are of
HISTORY = ("epoch", "update", "learning_rate", "train_loss_nats")
MADE = ("device", "environment_digest")  # where an item of a list was made
PER_JOB = ("card", "job_time_s")  # of an environment, what is of a job and not of a place
SHARED, BUSY = "other jobs on the card", "other processes on the card"  # what taints a run's times
ABSENT = object()

Planned = Iterable[tuple[Path, dict]]


class StaleResult(ValueError):
    """A stored result answers another request than the planned one."""


def collect(paths_and_requests: Planned) -> pd.DataFrame:
    """One row a result: cell, status, settings, then metrics and cost by name; what a result lacks is empty.

    A result with `rows` (a forward pass by batch size) has a row for each.

    Raises:
        StaleResult: says how many results are stale and where the first one differs.
    """
    found = _read(paths_and_requests)
    rows = [
        {**_head(one), **one.get("metrics", {}), **one.get("cost", {}), **row}
        for one in found
        for row in _rows(one)
    ]
    settings = (
        "learning_rate",
        "effective_batch_size",
        "split",
        "device",
        "device_name",
        "environment_digest",
        "taint",
    )
    metrics, cost = (
        sorted({name for one in found for name in one.get(part, {})})
        for part in ("metrics", "cost")
    )
    own = dict.fromkeys(name for one in found for row in _rows(one) for name in row)
    order = dict.fromkeys(
        (*CELL, "status", "reason", "request_digest", *settings, *own, *metrics, *cost)
    )
    return _frame(rows, order)


def _rows(one: dict) -> list[dict]:
    return one.get("rows") or [{}]


def listed(paths_and_requests: Planned, name: str) -> pd.DataFrame:
    """One row an item of the results' list `name`, such as history: cell, where it was made, epoch, update, other quantities.

    Raises:
        StaleResult: as in `collect`.
    """
    found = _read(paths_and_requests)
    rows = [
        {**one["request"]["cell"], **_made(one), **row}
        for one in found
        for row in one.get(name, [])
    ]
    others = sorted({name for row in rows for name in row} - {*CELL, *MADE, *HISTORY})
    return _frame(rows, (*CELL, *MADE, *HISTORY, *others))


def trials(paths_and_requests: Planned) -> pd.DataFrame:
    """One row a run of a search: cell, trial, status, settings tried, selection_loss_nats, whether the trial was `selected`.

    Raises:
        StaleResult: as in `collect`.
    """
    planned = list(paths_and_requests)
    found, frame = _read(planned), collect(planned).rename(columns=SELECTION)
    curves = [tuple(one["request"]["cell"][name] for name in CURVE) for one in found]
    tried = [
        (
            one["request"]["cell"]["trial"],
            one["request"]["trial"]["learning_rate"],
            search_choice.loss(one),
        )
        for one in found
    ]
    best = {
        curve: search_choice.best([t for t, c in zip(tried, curves, strict=True) if c == curve])
        for curve in set(curves)
    }
    tries = [one["request"]["trial"] for one in found]
    own = [
        {
            f"{part}_{name}": value
            for part in search_choice.PARTS
            for name, value in some[part].items()
        }
        for some in tries
    ]
    frame.insert(len(CELL), "trial", [name for name, *_ in tried])
    place = frame.columns.get_loc("learning_rate") + 1
    for name in reversed(dict.fromkeys(name for row in own for name in row)):
        values = pd.Series([row.get(name) for row in own], dtype=object)
        frame.insert(place, name, values.astype(_dtype(values)))
    frame["selected"] = [
        trial == best[curve] for (trial, *_), curve in zip(tried, curves, strict=True)
    ]
    return frame


def examples(paths_and_requests: Planned) -> pd.DataFrame:
    """One row an example of the reported split and run that ended well: cell, request_digest, example, then its scores.

    Raises:
        StaleResult: as in `collect`.
    """
    found = [one for one in _read(paths_and_requests) if one.get("examples")]
    names = list(dict.fromkeys(name for one in found for name in one["examples"]))
    head = (*CELL, "request_digest", "example")
    parts = [
        pd.DataFrame({**dict.fromkeys(head), **one["examples"]}).assign(**_who(one))
        for one in found
    ]
    frame = (
        pd.concat([part.assign(example=range(len(part))) for part in parts])
        if parts
        else pd.DataFrame(columns=[*head])
    )
    text = [name for name in (*CELL, "request_digest") if name not in ("rank", "seed")]
    return frame[[*head, *names]].astype(dict.fromkeys(text, "category")).reset_index(drop=True)


def _who(one: dict) -> dict:
    return {**one["request"]["cell"], "request_digest": provenance.digest(one["request"])}


def place(one: dict) -> dict:
    """Where a result was made: its lock, and what its job recorded, less what is of the job alone."""
    return {**one["request"].get("environment", {}), **without(one["environment"], PER_JOB)}


def _made(one: dict) -> dict:
    """The device that a result names, and the digest of the place; nothing where nothing was recorded."""
    device = one.get("device") or (
        one["request"].get("device") if "schedule" in one["request"] else None
    )
    known = {
        "device": device,
        "environment_digest": provenance.digest(place(one)) if one["environment"] else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _head(one: dict) -> dict:
    request, there = one["request"], one["environment"]
    kept = {name: one[name] for name in ("reason", "split") if name in one}
    kept |= {name: there[name] for name in ("device_name",) if name in there}
    row = {
        **request["cell"],
        "status": one["status"],
        **kept,
        **_made(one),
        "request_digest": provenance.digest(request),
    }
    if "schedule" not in request:
        return row
    schedule = request["schedule"]
    batch = schedule["batch_size"] * schedule["accumulation_steps"]
    ran = {
        "learning_rate": search_choice.method(one)["learning_rate"],
        "effective_batch_size": batch,
    }
    ran |= (
        {"device_name": there["processor"]}
        if request.get("device") == "cpu" and "processor" in there
        else {}
    )
    card = there.get("card", {})
    reasons = [SHARED] * card.get("shared", False) + [BUSY] * (card.get("others_bytes", 0) > 0)
    return {**row, **ran, **({"taint": "; ".join(reasons)} if reasons else {})}


def _frame(rows: list[dict], order: Iterable[str]) -> pd.DataFrame:
    """The columns of `order` that some row has, and status and reason; integers stay integers beside empty fields."""
    present = {name for row in rows for name in row} | (
        {"reason"} if any("status" in row for row in rows) else set()
    )
    columns = [name for name in order if name in present] if rows else list(CELL)
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in columns}
    )
    return frame.apply(lambda column: column.astype(_dtype(column)))


def _dtype(column: pd.Series) -> str:
    kinds = {type(value) for value in column if value is not None}
    if kinds == {int}:
        return "Int64"
    return "float64" if kinds and kinds <= {int, float} else "object"


def _read(paths_and_requests: Planned) -> list[dict]:
    pairs = [(path, request, result.read(path)) for path, request in paths_and_requests]
    stale = [
        (path, request, one["request"]) for path, request, one in pairs if one["request"] != request
    ]
    if stale:
        path, planned, stored = stale[0]
        raise StaleResult(
            f"{len(stale)} of {len(pairs)} results are stale; first {path}: it answers request {provenance.digest(stored)}, "
            f"planned {provenance.digest(planned)}; {_difference(stored, planned)}"
        )
    return [one for _, _, one in pairs]


def _difference(stored: object, planned: object, key: str = "") -> str:
    """The first place, keys sorted, where two JSON values differ: `schedule.epochs: result has 3, planned 4`."""
    if isinstance(stored, dict) and isinstance(planned, dict):
        pairs = [
            (name, stored.get(name, ABSENT), planned.get(name, ABSENT))
            for name in sorted({*stored, *planned})
        ]
    elif isinstance(stored, list) and isinstance(planned, list):
        pairs = [
            (str(i), *both) for i, both in enumerate(zip_longest(stored, planned, fillvalue=ABSENT))
        ]
    else:
        return f"{key}: result has {_short(stored)}, planned {_short(planned)}"
    name, one, other = next(pair for pair in pairs if pair[1] != pair[2])
    return _difference(one, other, f"{key}.{name}" if key else name)


def _short(value: object) -> str:
    text = "nothing" if value is ABSENT else json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}..."
