"""Scores of a study's runs as tables of seeds by examples, one for each curve.

Estimates and comparisons are made from these tables. Whether runs may be compared at all is decided
here too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankwise.analysis import metrics
from rankwise.core.keys import CURVE_IN_GROUP, GROUP
from rankwise.core.metrics import WEIGHT, Metric

DEVICES = ("device", "device_name")
# Scores may not mix kinds of device (cpu, cuda). They may mix GPUs or processors of several names,
# with a warning.
KIND = ("device",)
# What a fair comparison holds equal.
EQUAL = ("effective_batch_size", "updates", "samples", "tokens", *DEVICES)
MOST_NAMED = 3  # curves that a warning names one by one
ONE_SEED = "one seed: no interval"


class Curve(NamedTuple):
    """A method at a rank, and the scores of its runs that ended well."""

    method: str
    rank: int
    seeds: tuple[int, ...]
    scores: NDArray  # (S, E), whose plain mean is the metric's
    note: str  # which runs failed and how; whether there is only one seed

    @property
    def name(self) -> str:
        return name(self.method, self.rank)


class Group(NamedTuple):
    """All curves of a model and dataset, in the order of the runs."""

    model: str
    dataset: str
    metric: Metric
    examples: int
    curves: list[Curve]


class _Examples(NamedTuple):
    """The rows of the table of examples that belong to one group."""

    table: pd.DataFrame
    rows: dict[tuple, NDArray]  # (method, rank, seed) -> positions in the table


def name(method: str, rank: int) -> str:
    """`lora r8`; rank 0 is no rank and is left out."""
    return f"{method} r{rank:.0f}" if rank else method


# Groups -------------------------------------------------------------------------------------------


def groups(runs: pd.DataFrame, examples: pd.DataFrame) -> list[Group]:
    """The scores of each model and dataset that has a run that ended well.

    Args:
        runs: The table of that name: a row for each run.
        examples: The table of that name: a row for each example and run that ended well.

    Raises:
        ValueError: The runs of a model and dataset are from several kinds of device, have different
            numbers of examples, or a run has none; the message names them.
    """
    found = []
    for (model, dataset), tried in runs.groupby(GROUP, sort=False):
        check_devices(tried[tried["status"] == "ok"], "runs", KIND)
        own = examples[(examples["model"] == model) & (examples["dataset"] == dataset)]
        rows = own.groupby([*CURVE_IN_GROUP, "seed"], observed=True, sort=False).indices
        count = _examples_of_a_run(rows, tried, f"{model}/{dataset}")
        if count == 0:
            continue
        metric = metrics.of_runs(tried)
        curves = [
            _curve(*key, runs_of_curve, _Examples(own, rows), metric)
            for key, runs_of_curve in tried.groupby(CURVE_IN_GROUP, sort=False)
        ]
        found.append(Group(model, dataset, metric, count, curves))
    return found


def _examples_of_a_run(rows: dict[tuple, NDArray], tried: pd.DataFrame, where: str) -> int:
    """How many examples every run that ended well has; 0 if none did."""
    ended = tried[tried["status"] == "ok"]
    keys = list(zip(ended["method"], ended["rank"], ended["seed"], strict=True))
    cells = {key: f"{where}/{key[0]}/r{key[1]}/seed{key[2]}" for key in keys}
    missing = [cells[key] for key in keys if key not in rows]
    if missing:
        raise ValueError(
            f"examples.parquet: no scores for {', '.join(missing)}, which runs.csv has"
        )
    first_cell = {len(rows[key]): cells[key] for key in reversed(keys)}  # by number of examples
    if len(first_cell) > 1:
        sizes = ", ".join(f"{size} for {cell}" for size, cell in first_cell.items())
        raise ValueError(
            f"examples.parquet: numbers of examples are {sizes}; "
            "allowed: one number a model and dataset"
        )
    return next(iter(first_cell), 0)


def _curve(
    method: str, rank: int, tried: pd.DataFrame, examples: _Examples, metric: Metric
) -> Curve:
    seeds = tuple(sorted(tried["seed"][tried["status"] == "ok"]))
    note = "; ".join(_notes(tried))
    if not seeds:
        return Curve(method, rank, seeds, np.empty((0, 0)), note)
    numbers = examples.table["example"].to_numpy()
    by_example = []  # a row for each seed: positions of its examples, in their order
    for seed in seeds:
        rows = examples.rows[method, rank, seed]
        by_example.append(rows[np.argsort(numbers[rows], kind="stable")])
    positions = np.stack(by_example)
    columns = {}
    for column in (*metric.scores, WEIGHT):
        columns[column] = examples.table[column].to_numpy(float)[positions]
    return Curve(method, rank, seeds, metrics.by_example(metric, columns), note)


def _notes(tried: pd.DataFrame) -> list[str]:
    """Which runs of a curve failed and how, and whether one seed is left."""
    failed = tried[tried["status"] != "ok"]
    notes = []
    for status, seeds in failed.groupby("status")["seed"]:
        notes.append(f"seed {', '.join(map(str, seeds))} {status.replace('_', ' ')}")
    if len(tried) - len(failed) == 1:
        notes.append(ONE_SEED)
    return notes


# What may be compared -----------------------------------------------------------------------------


def check_devices(rows: pd.DataFrame, table: str, columns: Sequence[str] = DEVICES) -> None:
    """Refuse rows of one model and dataset that are from several devices.

    Args:
        rows: Rows of a table.
        table: The table's name, for the message.
        columns: Columns that tell devices apart; one that the table lacks is passed over.

    Raises:
        ValueError: Names the table, the model, the dataset and the devices.
    """
    for column in columns:
        if column not in rows:
            continue
        for (model, dataset), values in rows.groupby(GROUP, sort=False)[column]:
            devices = sorted(values.dropna().unique())
            if len(devices) > 1:
                raise ValueError(
                    f"{table}.csv: {column} of {model}/{dataset} is {' and '.join(devices)}; "
                    "allowed: one a model and dataset"
                )


def mixed(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(model, dataset) -> a warning, where its runs differ in what a fair comparison holds equal.

    Runs that train nothing take no part in the comparison. Tokens differ from seed to seed, as the
    random batches do, so they are compared within a seed.
    """
    updates = runs.get("updates", pd.Series(1, runs.index))
    trained = runs[(runs["status"] == "ok") & (updates > 0)]
    warnings = {}
    for key, rows in trained.groupby(GROUP, sort=False):
        texts = [_unequal_values(rows, column) for column in EQUAL if column in rows]
        texts = [text for text in texts if text]
        if texts:
            warnings[key] = f"{'/'.join(key)} compares unequal runs: {'; '.join(texts)}"
    return warnings


def _unequal_values(rows: pd.DataFrame, column: str) -> str:
    """`updates: 252, but 100 for lora r8`; empty where all are equal.

    The most frequent value comes first.
    """
    if column == "tokens":
        parts = [part for _, part in rows.groupby("seed")]
        rows = max(parts, key=lambda part: part[column].nunique())
    values = list(rows[column].value_counts().index)
    if len(values) < 2:
        return ""
    usual, *others = values
    exceptions = [
        f"{_value(value)} for {_curve_names(rows[rows[column] == value])}" for value in others
    ]
    return f"{column.replace('_', ' ')}: {_value(usual)}, but {' and '.join(exceptions)}"


def _value(value: float | str) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _curve_names(rows: pd.DataFrame) -> str:
    names = list(dict.fromkeys(name(row.method, row.rank) for row in rows.itertuples()))
    return ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} curves"
