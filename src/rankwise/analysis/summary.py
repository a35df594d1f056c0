"""The paper's table: each curve's metric with its interval, what is best or tied, and costs."""

from pathlib import Path

import pandas as pd

from rankwise.analysis import flags, partial_notes, tables
from rankwise.analysis.costs import Costs, costs
from rankwise.analysis.scores import DEVICES, EQUAL, KIND, check_devices, mixed
from rankwise.analysis.summary_notes import notes
from rankwise.core.keys import CURVE, GROUP
from rankwise.core.metrics import METRICS

SIZES = {
    "adapter_bytes": "adapter_mib",
    "optimizer_state_bytes": "optimizer_state_mib",
    "peak_bytes": "peak_mib",
    "measured_peak_bytes": "measured_peak_mib",
}
TIMES = ("update_time_s", "step_time_s")  # shown is the first that all curves have
STARTS = ("start_time_s", "start_flops")  # of runs whose method looks at data before it trains
BYTES_PER_MIB = 2**20


def summarise(request: dict, output: Path) -> None:
    """Write the paper's table, from the tables in the same folder.

    Args:
        request: `tables` names the tables to read; `labels` are pairs of a method and its label;
            `equivalence` holds the margins; `absent` names results that are not there.
        output: Path of the table.
    """
    frames = {name: tables.read(output.with_name(f"{name}.csv")) for name in request["tables"]}
    check_devices(frames["runs"], "runs", KIND)
    found = costs(frames)
    frame = summary(frames, found, dict(request["labels"]))
    texts = partial_notes.notes(request, frames["runs"])
    texts += notes(frame, found, request["equivalence"])
    tables.write(frame, output.with_suffix(""), texts)


def summary(frames: dict[str, pd.DataFrame], found: Costs, labels: dict[str, str]) -> pd.DataFrame:
    """One row for each curve, in the order of `labels`.

    Args:
        frames: Tables by name: runs, estimates and comparisons; search if the study has one.
        found: What the curves cost.
        labels: Method -> the label it is shown by.

    Returns:
        The table. Fractions, such as accuracies, are in percent, sizes in MiB. `n` counts the seeds
        that ended well. `best` is "best", "tied", "undecided", or empty for a curve that is worse.
        `flags` names the signs of too little training (flags.py). `warning` says
        where the runs of a model and dataset are not equal in batch, updates, samples, tokens or
        device.
    """
    runs = frames["runs"]
    by_curve = runs.groupby(CURVE, sort=False)
    table = by_curve.agg(n=("status", lambda status: (status == "ok").sum()))
    reasons = [name for name in ("status", "reason") if name in runs]
    status = by_curve[reasons].apply(_statuses)
    table = table.join(_metrics(frames["estimates"]))
    table["best"] = _best(frames["estimates"], frames["comparisons"], status)
    table = table.join(_shown_costs(found, table))
    table = table.join(_starts(runs, table.index))
    table = table.join(_training(runs, table.index))
    table["flags"] = flags.of_curves(runs, frames.get("search"))
    warnings = mixed(runs)
    table["warning"] = [warnings.get((model, dataset)) for model, dataset, *_ in table.index]
    table["status"] = status
    return _labelled(table.reset_index(), labels)


def _training(runs: pd.DataFrame, curves: pd.MultiIndex) -> pd.DataFrame:
    """The columns of EQUAL for each curve: means over its sound runs, or its devices' names."""
    by_curve = runs[runs["status"] == "ok"].groupby(CURVE, sort=False)
    columns = {}
    for name in EQUAL:
        if name in runs:
            columns[name] = by_curve[name].agg(_joined if name in DEVICES else "mean")
    return pd.DataFrame(columns, index=curves)


def _joined(names: pd.Series) -> str | None:
    return " and ".join(sorted(names.dropna().unique())) or None


def _statuses(runs: pd.DataFrame) -> str:
    """`ok`, or what befell runs of a curve: `unsupported (1 of 3): the model has no biases`."""
    failed = runs[runs["status"] != "ok"].fillna({"reason": ""})
    texts = []
    for (status, *reasons), count in failed.value_counts(sort=False).items():
        text = f"{status.replace('_', ' ')} ({count} of {len(runs)})"
        texts.append(": ".join([text, *filter(None, reasons)]))
    return ", ".join(texts) or "ok"


def _metrics(estimates: pd.DataFrame) -> pd.DataFrame:
    """The metrics that some curve has, with their intervals, a row for each curve."""
    parts = []
    for metric in METRICS.values():
        rows = estimates[estimates["metric"] == metric.name].set_index(CURVE)
        if len(rows):
            values = rows[["estimate", "low", "high"]].astype(float) * metric.factor
            parts.append(values.set_axis(list(metric.shown), axis="columns"))
    return pd.concat(parts, axis="columns") if parts else estimates.set_index(CURVE)[[]]


# Best, tied, undecided ----------------------------------------------------------------------------


def _best(estimates: pd.DataFrame, comparisons: pd.DataFrame, status: pd.Series) -> pd.Series:
    """How each curve compares with the best of its model and dataset.

    A curve with a failed run is not ranked.
    """
    by_curve = estimates.set_index(CURVE)
    ranked = by_curve[status.reindex(by_curve.index) == "ok"]
    marks = pd.Series("", status.index)
    for _, rows in ranked.groupby(GROUP, sort=False):
        sign = METRICS[rows["metric"].iloc[0]].sign
        best = (rows["estimate"] * sign).idxmax()
        verdict_of = verdicts(comparisons, best)
        marks[rows.index] = [verdict_of.get(curve, "") for curve in rows.index]
        marks[best] = "best"
    return marks


def verdicts(comparisons: pd.DataFrame, best: tuple) -> dict[tuple, str]:
    """How the other curves of a model and dataset stand beside one.

    Args:
        comparisons: The table of that name.
        best: Model, dataset, method and rank of the curve that the others are compared with.

    Returns:
        Curve -> "tied"; "" where it is shown to be worse; else "undecided", also where the
        comparison says that it is better.
    """
    model, dataset, *curve = best
    in_group = (comparisons["model"] == model) & (comparisons["dataset"] == dataset)
    verdict_of = {}
    for row in comparisons[in_group].itertuples():
        a, b = [row.method_a, row.rank_a], [row.method_b, row.rank_b]
        if curve not in (a, b):
            continue
        other, won = (b, "a better") if curve == a else (a, "b better")
        words = {"tied": "tied", won: ""}
        verdict_of[model, dataset, *other] = words.get(row.verdict, "undecided")
    return verdict_of


# Costs and order ----------------------------------------------------------------------------------


def _shown_costs(found: Costs, table: pd.DataFrame) -> pd.DataFrame:
    """The columns of cost: parameters, sizes in MiB, one time."""
    known = found.table.reindex(table.index)
    columns = {}
    if "trainable_parameters" in known:
        columns["trainable_parameters"] = known["trainable_parameters"].astype("Int64")
    for cost, name in SIZES.items():
        if cost in known:
            columns[name] = known[cost] / BYTES_PER_MIB
    time = _shown_time(known, table["n"])
    if time:
        columns[time] = known[time]
    return pd.DataFrame(columns, index=table.index)


def _starts(runs: pd.DataFrame, curves: pd.MultiIndex) -> pd.DataFrame:
    """The costs of each curve's start: means over its sound runs, empty where it has none."""
    by_curve = runs[runs["status"] == "ok"].groupby(CURVE, sort=False)
    columns = {}
    for name in STARTS:
        if name in runs and runs[name].notna().any():
            columns[name] = by_curve[name].mean().astype(float)
    return pd.DataFrame(columns, index=curves)


def _shown_time(known: pd.DataFrame, n: pd.Series) -> str | None:
    """The first column of TIMES that every trained curve has, so that times are comparable."""
    is_trained = known["step_time_s"].notna() if "step_time_s" in known else n > 0
    for name in TIMES:
        if name in known and known.loc[is_trained, name].notna().all():
            return name
    return None


def _labelled(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The rows by group, method in the order of the labels, then rank; methods by their labels."""
    position = {method: number for number, method in enumerate(labels)}
    keys = table.assign(
        group=table.groupby(GROUP, sort=False).ngroup(), position=table["method"].map(position)
    )
    order = keys.sort_values(["group", "position", "rank"], kind="stable").index
    shown = table["method"].map(lambda method: labels.get(method, method))
    return table.loc[order].assign(method=shown).reset_index(drop=True)
