"""Scores of a study's runs as tables of seeds by examples, one a curve: what estimates and comparisons are made from."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

GROUP = ["model", "dataset"]
CURVE = ["method", "rank"]
DEVICES = ("device", "device_name")
KIND = DEVICES[
    :1
]  # what scores may not mix; cards or processors of several names they may, with a warning
EQUAL = (
    "effective_batch_size",
    "updates",
    "samples",
    "tokens",
    *DEVICES,
)  # what a fair comparison holds equal
NAMED = 3  # curves that a warning names one by one
ONE_SEED = "one seed: no interval"


class Metric(NamedTuple):
    """A column of runs, and the score of an example whose mean, after `shown`, it is."""

    name: str
    score: str
    sign: int  # 1: more is better
    shown: Callable[[float], float]


METRICS = (
    Metric("accuracy_fraction", "correct_fraction", 1, float),
    Metric("perplexity", "loss_nats", -1, lambda loss: float(np.exp(loss))),
)


class Curve(NamedTuple):
    """A method at a rank: the seeds that ended well and their scores (seeds, examples), whose plain mean is the metric's."""

    method: str
    rank: int
    seeds: tuple[int, ...]
    scores: NDArray
    note: str  # which runs are missing and why; that there is one seed

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


def name(method: str, rank: int) -> str:
    """`lora r8`; rank 0 is no rank."""
    return f"{method} r{rank:.0f}" if rank else method


def groups(runs: pd.DataFrame, examples: pd.DataFrame) -> list[Group]:
    """One a model and dataset with a run that ended well; `runs` and `examples` are the tables of these names.

    Raises:
        ValueError: runs of a model and dataset on several kinds of device or examples, or a run without examples; names them.
    """
    found = []
    for (model, dataset), rows in runs.groupby(GROUP, sort=False):
        check_devices(rows[rows["status"] == "ok"], "runs", KIND)
        own = examples[(examples["model"] == model) & (examples["dataset"] == dataset)]
        parts = own.groupby([*CURVE, "seed"], observed=True, sort=False).indices
        count = _count(parts, rows, f"{model}/{dataset}")
        if count:
            metric = next(
                one for one in METRICS if one.score in own and own[one.score].notna().all()
            )
            curves = [
                _curve(*key, some, own, parts, metric)
                for key, some in rows.groupby(CURVE, sort=False)
            ]
            found.append(Group(model, dataset, metric, count, curves))
    return found


def _count(parts: dict[tuple, NDArray], rows: pd.DataFrame, where: str) -> int:
    """Examples of every run; 0 if none ended well."""
    ended = rows[rows["status"] == "ok"]
    keys = list(zip(ended["method"], ended["rank"], ended["seed"], strict=True))
    cells = {key: f"{where}/{key[0]}/r{key[1]}/seed{key[2]}" for key in keys}
    if missing := [cell for key, cell in cells.items() if key not in parts]:
        raise ValueError(
            f"examples.parquet: no scores for {', '.join(missing)}, which runs.csv has"
        )
    first = {len(parts[key]): key for key in reversed(keys)}
    if len(first) > 1:
        sizes = ", ".join(f"{size} for {cells[key]}" for size, key in first.items())
        raise ValueError(
            f"examples.parquet: numbers of examples are {sizes}; allowed: one number a model and dataset"
        )
    return next(iter(first), 0)


def _curve(
    method: str,
    rank: int,
    tried: pd.DataFrame,
    own: pd.DataFrame,
    parts: dict[tuple, NDArray],
    metric: Metric,
) -> Curve:
    seeds = tuple(sorted(tried["seed"][tried["status"] == "ok"]))
    order = [
        at[np.argsort(own["example"].to_numpy()[at], kind="stable")]
        for at in (parts[method, rank, s] for s in seeds)
    ]
    at = np.stack(order) if seeds else np.empty((0, 0), int)
    scores, weights = (own[column].to_numpy(float)[at] for column in (metric.score, "predictions"))
    return Curve(
        method, rank, seeds, linear(scores, weights) if seeds else scores, "; ".join(_notes(tried))
    )


def linear(scores: NDArray, weights: NDArray) -> NDArray:
    """Scores (S, E) whose mean over examples is each seed's weighted one, to first order with its variance.

    As `stats.mean` does for weights (E,); here seeds may weigh examples differently, as random masks do.
    """
    if (weights == weights[0, 0]).all():
        return scores  # 0 and 1 stay exact: their intervals differ
    shares = weights / weights.mean(1, keepdims=True)
    centre = (scores * shares).mean()
    return centre + shares * (scores - centre)


def _notes(tried: pd.DataFrame) -> list[str]:
    """Which runs of a curve did not end well, and whether one seed is left."""
    bad = tried[tried["status"] != "ok"]
    lost = [
        f"seed {', '.join(map(str, some))} {why.replace('_', ' ')}"
        for why, some in bad.groupby("status")["seed"]
    ]
    return [*lost, *([ONE_SEED] if len(tried) - len(bad) == 1 else [])]


def check_devices(rows: pd.DataFrame, table: str, columns: tuple[str, ...] = DEVICES) -> None:
    """Refuse rows of one model and dataset from several devices, by any of the `columns`.

    Raises:
        ValueError: names the table, the model, the dataset and the devices.
    """
    for column in columns:
        for (model, dataset), some in rows.groupby(GROUP, sort=False) if column in rows else ():
            devices = sorted(some[column].dropna().unique())
            if len(devices) > 1:
                raise ValueError(
                    f"{table}.csv: {column} of {model}/{dataset} is {' and '.join(devices)}; allowed: one a model and dataset"
                )


def mixed(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(model, dataset) -> a warning, where runs differ in what a fair comparison holds equal.

    Runs that train nothing are no part of it. Tokens differ by seed, as the draws do: they are compared within a seed.
    """
    trained = runs[(runs["status"] == "ok") & (runs.get("updates", pd.Series(1, runs.index)) > 0)]
    found = {}
    for key, rows in trained.groupby(GROUP, sort=False):
        texts = [text for column in EQUAL if column in rows and (text := _differing(rows, column))]
        if texts:
            found[key] = f"{'/'.join(key)} compares unequal runs: {'; '.join(texts)}"
    return found


def _differing(rows: pd.DataFrame, column: str) -> str:
    """`updates: 252, but 100 for lora r8`; the most frequent value comes first."""
    parts: Iterator = (
        (some for _, some in rows.groupby("seed")) if column == "tokens" else iter([rows])
    )
    worst = max(parts, key=lambda some: some[column].nunique())
    counts = worst[column].value_counts()
    others = [(value, worst[worst[column] == value]) for value in counts.index[1:]]
    texts = [
        f"{value:,.0f}" if isinstance(value, int | float) else str(value) for value in counts.index
    ]
    named = [f"{text} for {_who(some)}" for text, (_, some) in zip(texts[1:], others, strict=True)]
    return f"{column.replace('_', ' ')}: {texts[0]}, but {' and '.join(named)}" if named else ""


def _who(rows: pd.DataFrame) -> str:
    names = list(dict.fromkeys(name(row.method, row.rank) for row in rows.itertuples()))
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} curves"
