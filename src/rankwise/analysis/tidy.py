"""Turn results into tidy tables: one row for each result, or for each item of a list in it.

A result that does not answer the request that its folder names is refused, and so is one whose
numbers do not follow from its own scores. So no table mixes what was planned with something else.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import flags, recomputed
from rankwise.analysis.run_settings import run_settings
from rankwise.core import provenance, store
from rankwise.core.config import without
from rankwise.core.keys import CELL, CURVE, VARIANT
from rankwise.core.metrics import METRICS
from rankwise.study import search_choice
from rankwise.study.grids import split_name

SETTINGS = (
    "learning_rate", "effective_batch_size", "split", "device", "device_name",
    "environment_digest", "taint", "flags",
    "left_out",
)  # fmt: skip
HISTORY = ("epoch", "update", "learning_rate", "train_loss_nats")
MADE = ("device", "environment_digest")  # where an item of a list was made
PER_JOB = ("card", "job_time_s")  # keys of an environment that belong to the job, not to the place
# What slowed a run that shared its GPU.
SHARED, BUSY = "other jobs on the card", "other processes on the card"


class Planned(NamedTuple):
    """A result that a table is made from.

    Attributes:
        path: Its file, in a folder named by its request's digest.
        method: The method's name in tables, `lora@fast`, for a variant; None for all others. A
            request has no variant, because its name changes no result.
    """

    path: Path
    method: str | None = None


# Tables -------------------------------------------------------------------------------------------


def collect(
    planned: Iterable[Planned], computed: Callable[[dict], dict] | None = None
) -> pd.DataFrame:
    """One row for each result: cell, status, then metrics and costs by name, then settings.

    A result with `rows`, such as a forward pass at several batch sizes, has a table row for each of
    them. A value that a result lacks is empty. A training run has every option of its method and
    optimizer, its storage and its schedule.

    Args:
        planned: Files of results.
        computed: Gives, of a stored result, metrics that follow from its scores.

    Raises:
        StoreError: A result answers another request than its folder says.
    """
    rows, own, settings, metrics, costs = [], {}, set(), set(), set()
    for cell, stored in read_results(planned):
        trained_with = run_settings(stored)
        head = {**cell, **_head(stored), **trained_with}
        settings |= set(trained_with)
        measured = {**stored.get("metrics", {}), **(computed(stored) if computed else {})}
        metrics |= set(measured)
        costs |= set(stored.get("cost", {}))
        for row in stored.get("rows") or [{}]:
            own |= dict.fromkeys(row)  # a dict keeps the order in which the names appear
            rows.append({**head, **measured, **stored.get("cost", {}), **row})
    columns = [*CELL, VARIANT, "status", "reason", "request_digest", *SETTINGS]
    columns += [*own, *sorted(metrics), *sorted(costs), *sorted(settings)]
    return _frame(rows, columns)


def listed(planned: Iterable[Planned], name: str) -> pd.DataFrame:
    """One row for each item of a list in the results.

    Args:
        planned: Files of results.
        name: Of the list, such as "history".

    Returns:
        Cell, where it was made, epoch and update where known, then the other quantities by name.

    Raises:
        StoreError: As in `collect`.
    """
    rows = []
    for cell, stored in read_results(planned):
        head = {**cell, **_made(stored)}
        rows += [{**head, **item} for item in stored.get(name, [])]
    names = set().union(*rows)
    others = sorted(names - {*CELL, VARIANT, *MADE, *HISTORY})
    return _frame(rows, [*CELL, VARIANT, *MADE, *HISTORY, *others])


def trials(planned: Iterable[Planned], unfinished: Collection[tuple] = ()) -> pd.DataFrame:
    """One row for each run of a search.

    Args:
        planned: Files of results.
        unfinished: Curves (model, dataset, method, rank) with a trial that has no result yet.

    Returns:
        Cell, trial, status, the settings that were tried, `selection_loss_nats`, and whether the
        trial was `selected`; none is of an unfinished curve.

    Raises:
        StoreError: As in `collect`.
    """
    planned = list(planned)
    results = read_results(planned)
    frame = collect(planned).rename(columns=_selection_columns())
    names = [cell["trial"] for cell, _ in results]
    frame.insert(len(CELL), "trial", names)
    settings = [_tried_settings(stored["request"]["trial"]) for _, stored in results]
    position = frame.columns.get_loc("learning_rate") + 1
    for name in dict.fromkeys(name for row in settings for name in row):
        values = pd.Series([row.get(name) for row in settings], dtype=object)
        frame.insert(position, name, values.astype(_dtype(values)))
        position += 1
    best = _best_trials(results)
    frame["selected"] = [
        _curve(cell) not in unfinished and name == best[_curve(cell)]
        for name, (cell, _) in zip(names, results, strict=True)
    ]
    return frame


def examples(planned: Iterable[Planned]) -> pd.DataFrame:
    """One row for each example of the reported split and each run that ended well.

    Returns:
        Cell, `request_digest`, the example's number, then its scores.

    Raises:
        StoreError: As in `collect`.
    """
    head = [*CELL, "request_digest", "example"]
    parts, scores = [], {}
    for cell, stored in read_results(planned):
        if not stored.get("examples"):
            continue
        scores |= dict.fromkeys(stored["examples"])
        # The keys come first, so that they are the first columns; their values follow.
        part = pd.DataFrame({**dict.fromkeys(head), **stored["examples"]})
        keys = {name: cell[name] for name in CELL}
        part = part.assign(**keys, example=range(len(part)))
        parts.append(part.assign(request_digest=provenance.digest(stored["request"])))
    frame = pd.concat(parts) if parts else pd.DataFrame(columns=head)
    # A run's texts are the same in each of its thousands of rows: a category stores each text once.
    texts = ("model", "dataset", "method", "request_digest")
    return frame[[*head, *scores]].astype(dict.fromkeys(texts, "category")).reset_index(drop=True)


# Searches -----------------------------------------------------------------------------------------


def _selection_columns() -> dict[str, str]:
    """A trial's metrics are of the selection split: their columns say so."""
    columns = {metric: f"selection_{metric}" for metric in METRICS}
    return {"eval_loss_nats": "selection_loss_nats", **columns}


def _curve(cell: dict) -> tuple:
    return tuple(cell[name] for name in CURVE)


def _tried_settings(trial: dict) -> dict:
    """The settings that a trial changed apart from the learning rate, by column, such as
    `options_alpha`.
    """
    columns = {}
    for part in search_choice.PARTS:
        columns |= {f"{part}_{name}": value for name, value in trial[part].items()}
    return columns


def _best_trials(results: list[tuple[dict, dict]]) -> dict[tuple, str | None]:
    """Curve -> the trial that its search selects."""
    tried: dict[tuple, list] = {}
    for cell, stored in results:
        rate = stored["request"]["trial"]["learning_rate"]
        run = (cell["trial"], rate, search_choice.loss(stored))
        tried.setdefault(_curve(cell), []).append(run)
    return {curve: search_choice.best(runs) for curve, runs in tried.items()}


# Columns that every table has ---------------------------------------------------------------------


def place(stored: dict) -> dict:
    """Where a result was made: its lock, and its environment without what is the job's own."""
    return {**stored["request"].get("environment", {}), **without(stored["environment"], PER_JOB)}


def _made(stored: dict) -> dict:
    """The device of a result and a digest of its place, as far as they were recorded."""
    made = {}
    device = stored.get("device")
    if not device and "schedule" in stored["request"]:
        device = stored["request"].get("device")
    if device:
        made["device"] = device
    if stored["environment"]:
        made["environment_digest"] = provenance.digest(place(stored))
    return made


def _head(stored: dict) -> dict:
    """The columns of a result that are neither its cell, nor settings, metrics or costs."""
    request, environment = stored["request"], stored["environment"]
    head = {
        "status": stored["status"],
        **_made(stored),
        "request_digest": provenance.digest(request),
    }
    head |= {name: stored[name] for name in ("reason", "split", "left_out") if name in stored}
    if "device_name" in environment:
        head["device_name"] = environment["device_name"]
    if "schedule" in request:
        head |= _training(stored)
    return head


def _training(stored: dict) -> dict:
    """The columns that only results of training have."""
    request, environment = stored["request"], stored["environment"]
    schedule = request["schedule"]
    columns = {
        "learning_rate": search_choice.method(stored)["learning_rate"],
        "effective_batch_size": schedule["batch_size"] * schedule["accumulation_steps"],
    }
    if request.get("device") == "cpu" and "processor" in environment:
        columns["device_name"] = environment["processor"]
    gpu = environment.get("card", {})
    taint = []
    if gpu.get("shared", False):
        taint.append(SHARED)
    if gpu.get("others_bytes", 0) > 0:
        taint.append(BUSY)
    if taint:
        columns["taint"] = "; ".join(taint)
    # A trial is judged by its loss alone.
    found = [] if "trial" in request["cell"] else flags.of_run(stored)
    if found:
        columns["flags"] = "; ".join(found)
    return columns


def _frame(rows: list[dict], order: Iterable[str]) -> pd.DataFrame:
    """The columns of `order` that some row has.

    A table with a status also has a reason, even if no run failed.
    """
    if not rows:
        return pd.DataFrame(columns=CELL)
    present = set().union(*rows)
    if "status" in present:
        present.add("reason")
    columns = {}
    for name in dict.fromkeys(order):
        if name in present:
            values = pd.Series([row.get(name) for row in rows], dtype=object)
            columns[name] = values.astype(_dtype(values))
    return pd.DataFrame(columns)


def _dtype(column: pd.Series) -> str:
    """The type of a column: integers stay integers even beside empty fields."""
    kinds = {type(value) for value in column if value is not None}
    if kinds == {int}:
        return "Int64"
    return "float64" if kinds and kinds <= {int, float} else "object"


# Results ------------------------------------------------------------------------------------------


def read_results(planned: Iterable[Planned]) -> list[tuple[dict, dict]]:
    """The results, each of which answers the request that its folder names, with their cells."""
    results = []
    for one in planned:
        stored = store.check_answers(one.path, one.path.parent.name)
        recomputed.check(one.path, stored)
        results.append((_cell(one, stored), stored))
    return results


def _cell(planned: Planned, stored: dict) -> dict:
    """The columns that name a result: its cell, with the variant if it is of one."""
    cell = stored["request"]["cell"]
    if planned.method is None:
        return {**cell}
    _, variant = split_name(planned.method)
    return {**cell, "method": planned.method, VARIANT: variant}
