"""The paper's table: each curve's metric with its interval, which are best, tied or undecided, and what each costs."""

from pathlib import Path

import pandas as pd

from rankwise.analysis import tables
from rankwise.analysis.costs import CELL, Costs, costs
from rankwise.analysis.scores import DEVICES, EQUAL, GROUP, KIND, METRICS, check_devices, mixed

# Metric of the estimates -> its column here, the columns of its interval, and what turns its unit into theirs.
SHOWN = {
    "accuracy_fraction": ("accuracy_percent", "accuracy_low_percent", "accuracy_high_percent", 100),
    "perplexity": ("perplexity", "perplexity_low", "perplexity_high", 1),
}
SIGN = {metric.name: metric.sign for metric in METRICS}
SIZES = {
    "optimizer_state_bytes": "optimizer_state_mib",
    "peak_bytes": "peak_mib",
    "measured_peak_bytes": "measured_peak_mib",
}
TIMES = ("update_time_s", "step_time_s")  # the first that all curves have
WORDS = {
    "effective_batch_size": "samples an update",
    "updates": "updates",
    "samples": "samples",
    "tokens": "tokens",
}
NOTES = {
    "interval": "In brackets: the 95 % interval over seeds and examples.",
    "one": "n is 1: one seed, no interval.",
    "best": "Bold: the best of a model and dataset, among curves of which every run ended well.",
    "tied": "{mark} tied with the best: the difference is inside the margin, {margins} (two one-sided t tests, Holm).",
    "undecided": "{mark} undecided: neither shown worse than the best nor tied with it.",
    "worse": "Unmarked: worse than the best (paired t test, Holm, p at most 0.05).",
    "failed": "Not ranked: curves of which a run failed.",
    "peak_mib": "peak: of a training step, predicted from shapes.",
    "update_time_s": "update: median of the throughput profile.",
    "step_time_s": "step: mean of the training runs, with whatever else the machine did.",
}


def summarise(request: dict, output: Path) -> None:
    """Write the paper's table from the tables beside it."""
    frames = {name: tables.read(output.with_name(f"{name}.csv")) for name in request["tables"]}
    check_devices(frames["runs"], "runs", KIND)
    found = costs(frames)
    frame = summary(frames, found, dict(request["labels"]))
    tables.write(frame, output.with_suffix(""), notes(frame, found, request["equivalence"]))


def summary(frames: dict[str, pd.DataFrame], found: Costs, labels: dict[str, str]) -> pd.DataFrame:
    """One row a curve (its method by label, in the order of `labels`); `n` counts the seeds that ended well.

    Accuracy in %, perplexity; sizes in MiB. `best` is best, tied, undecided, or empty for worse, from `frames["comparisons"]`.
    `warning` says where the runs of a model and dataset are not equal in batch, updates, samples, tokens or device.
    """
    runs = frames["runs"]
    grouped = runs.groupby(CELL, sort=False)
    table = grouped.agg(n=("status", lambda status: (status == "ok").sum()))
    table["status"] = grouped[[name for name in ("status", "reason") if name in runs]].apply(
        _statuses
    )
    table = table.join(_metrics(frames["estimates"]))
    table["best"] = _best(frames["estimates"], frames["comparisons"], table["status"])
    table = table.join(_priced(found, table))
    sound = runs[runs["status"] == "ok"].groupby(CELL, sort=False)
    for name in (name for name in EQUAL if name in runs):
        table[name] = (sound[name].agg(_named) if name in DEVICES else sound[name].mean()).reindex(
            table.index
        )
    warnings = mixed(runs)
    table["warning"] = [warnings.get(cell[:2]) for cell in table.index]
    table["status"] = table.pop("status")  # stands last of what people read
    return _labelled(table.reset_index(), labels)


def _named(values: pd.Series) -> str | None:
    return " and ".join(sorted(values.dropna().unique())) or None


def _statuses(tried: pd.DataFrame) -> str:
    """`ok`, or what befell the others and why: `unsupported (1 of 3): the model has no biases`."""
    bad = tried[tried["status"] != "ok"].fillna({"reason": ""})
    counts = bad.value_counts(sort=False)
    words = [
        (status.replace("_", " "), *reason, number) for (status, *reason), number in counts.items()
    ]
    return (
        ", ".join(
            f"{word[0]} ({word[-1]} of {len(tried)}){': ' * any(word[1:-1])}{''.join(word[1:-1])}"
            for word in words
        )
        or "ok"
    )


def _metrics(estimates: pd.DataFrame) -> pd.DataFrame:
    """The columns of SHOWN that some curve has."""
    parts = [
        own.set_index(CELL)[["estimate", "low", "high"]]
        .astype(float)
        .set_axis(columns, axis="columns")
        * factor
        for metric, (*columns, factor) in SHOWN.items()
        if len(own := estimates[estimates["metric"] == metric])
    ]
    return pd.concat(parts, axis="columns") if parts else estimates.set_index(CELL)[[]]


def _best(estimates: pd.DataFrame, comparisons: pd.DataFrame, status: pd.Series) -> pd.Series:
    """What each curve is beside the best of its model and dataset; a curve with a failed run is not ranked."""
    sound = estimates.set_index(CELL).loc[lambda frame: status.reindex(frame.index) == "ok"]
    marks = pd.Series("", status.index)
    for _, rows in sound.groupby(GROUP, sort=False):
        best = (rows["estimate"] * rows["metric"].map(SIGN)).idxmax()
        against = verdicts(comparisons, best)
        marks[rows.index] = [against.get(cell, "") for cell in rows.index]
        marks[best] = "best"
    return marks


def verdicts(comparisons: pd.DataFrame, best: tuple) -> dict[tuple, str]:
    """Other curves of a model and dataset -> tied or undecided beside `best`, a CELL, or empty where it is better."""
    found = {}
    model, dataset, *curve = best
    own = comparisons[(comparisons["model"] == model) & (comparisons["dataset"] == dataset)]
    for row in own.itertuples():
        a, b = [row.method_a, row.rank_a], [row.method_b, row.rank_b]
        if curve in (a, b):
            other, won = (b, "a better") if curve == a else (a, "b better")
            found[model, dataset, *other] = {"tied": "tied", won: ""}.get(row.verdict, "undecided")
    return found


def _priced(found: Costs, table: pd.DataFrame) -> pd.DataFrame:
    """The columns of cost: parameters, sizes in MiB, one time."""
    have = found.table.reindex(table.index)
    counts = {
        name: have[name].astype("Int64") for name in ("trainable_parameters",) if name in have
    }
    sizes = {name: have[cost] / 2**20 for cost, name in SIZES.items() if cost in have}
    trained = have[have["step_time_s"].notna()] if "step_time_s" in have else have[table["n"] > 0]
    times = [name for name in TIMES if name in have and trained[name].notna().all()][:1]
    return pd.DataFrame({**counts, **sizes, **have[times]}, index=table.index)


def _labelled(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    group = table.groupby(GROUP, sort=False).ngroup()
    method = table["method"].map({name: i for i, name in enumerate(labels)})
    order = (
        table.assign(group=group, place=method)
        .sort_values(["group", "place", "rank"], kind="stable")
        .index
    )
    return (
        table.loc[order]
        .assign(method=table["method"].map(lambda name: labels.get(name, name)))
        .reset_index(drop=True)
    )


def notes(frame: pd.DataFrame, found: Costs, margins: dict[str, float]) -> list[str]:
    """The lines under the table: what its marks mean, how much training its rows had, what is unequal."""
    sound = frame["status"] == "ok"
    there = {
        "interval": (frame["n"] > 1).any(),
        "one": (frame["n"] == 1).any(),
        **{mark: (frame["best"] == mark).any() for mark in ("best", "tied", "undecided")},
        "worse": ((frame["best"] == "") & sound).any(),
        "failed": (~sound).any(),
        **{name: name in frame for name in ("peak_mib", *TIMES)},
    }
    lines = [
        NOTES[name].format(mark=tables.MARKS.get(name), margins=_margins(frame, margins))
        for name in there
        if there[name]
    ]
    warnings = [
        f"Warning: {text}." for text in [*frame["warning"].dropna().unique(), *found.notes.values()]
    ]
    return [" ".join(lines), _training(frame), *warnings]


def _margins(frame: pd.DataFrame, margins: dict[str, float]) -> str:
    points, ratio = 100 * margins["accuracy_fraction"], margins["perplexity_ratio"]
    words = {
        "accuracy_percent": f"{points:g} point{'s' * (points != 1)}",
        "perplexity": f"a factor of {ratio:g}",
    }
    return " or ".join(text for column, text in words.items() if column in frame)


def _training(frame: pd.DataFrame) -> str:
    """Batch, updates, samples and tokens of each model and dataset; a range where its rows differ."""
    trained = frame[frame["updates"] > 0] if "updates" in frame else frame
    return " ".join(
        f"{'/'.join(key)}: {', '.join(f'{_range(rows[name])} {word}' for name, word in WORDS.items() if name in rows)}."
        for key, rows in trained.groupby(GROUP, sort=False)
    )


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f}"
