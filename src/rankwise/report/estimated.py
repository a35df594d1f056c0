"""What figures of the final metric share: the estimates of each model and dataset, checked against the runs."""

from typing import NamedTuple

import pandas as pd

from rankwise.report import style

CURVE = ["method", "rank"]
CELL = ["model", "dataset", *CURVE]


class Group(NamedTuple):
    """A model and dataset: what the axis says, 1 if more is better (else -1), curves as `value`, `low`, `high`, and the runs.

    Every curve that was tried has a row; without a run that ended well it has no value, with one seed no interval. `failed`
    says what became of the other runs: `diverged`, `1 of 3 diverged`, or nothing.
    """

    axis: str
    sign: int
    curves: pd.DataFrame
    runs: pd.DataFrame

    def notes(self, labels: dict[str, str]) -> list[str]:
        """Lines below a panel: which curves have one seed, which runs failed."""
        shown = self.curves[self.curves["value"].notna()]
        alone = [
            style.name(row.method, row.rank, labels) for row in shown.itertuples() if row.seeds == 1
        ]
        return [*style.one_seed(alone, len(shown)), *style.failed(self.runs, labels)]


def groups(
    figure: str, tables: dict[str, pd.DataFrame], labels: dict[str, str]
) -> dict[tuple[str, str], Group]:
    """From `tables["estimates"]` and `tables["runs"]`, in the order of the runs.

    Raises:
        ValueError: a curve with a run that ended well has no estimate, or there are no runs; names the cells.
    """
    runs = tables["runs"]
    curves = (
        runs.groupby(CELL, sort=False)["status"]
        .agg(failed=_failed, ended=lambda some: (some == "ok").sum())
        .reset_index()
    )
    joined = curves.merge(tables["estimates"], on=CELL, how="left", validate="one_to_one")
    missing = joined[joined["estimate"].isna() & (joined["ended"] > 0)]
    if joined.empty or len(missing):
        raise ValueError(
            f"{figure}: no estimate for the cells of train: {style.cells(missing) or 'there are none'}"
        )
    tried = style.groups(runs, labels)
    return {
        key: _group(rows, tried[key])
        for key, rows in style.groups(joined, labels).items()
        if rows["estimate"].notna().any()
    }


def _failed(status: pd.Series) -> str:
    bad = status[status != "ok"].str.replace("_", " ")
    words = [
        f"{n} of {len(status)} {word}" if n < len(status) else word
        for word, n in bad.value_counts(sort=False).items()
    ]
    return ", ".join(words)


def _group(rows: pd.DataFrame, runs: pd.DataFrame) -> Group:
    metric = rows["metric"].dropna().iloc[0]
    percent = metric.endswith("_fraction")
    split = "" if runs["split"].dropna().empty else f" on {runs['split'].dropna().iloc[0]}"
    axis = f"{metric.removesuffix('_fraction')}{split}" + (
        " (%)" if percent else "\n(lower is better)"
    )
    factor = 100 if percent else 1
    scaled = {
        "value": rows["estimate"] * factor,
        "low": rows["low"] * factor,
        "high": rows["high"] * factor,
    }
    return Group(axis, 1 if percent else -1, rows.assign(**scaled).reset_index(drop=True), runs)
