"""The estimates of each panel of a figure of the final metric, checked against the runs."""

from typing import NamedTuple

import pandas as pd

from rankwise.core.keys import CURVE
from rankwise.core.metrics import METRICS
from rankwise.report import style


class Group(NamedTuple):
    """The curves of one model and dataset.

    Attributes:
        axis: the name of the metric, for an axis.
        sign: 1 if a higher metric is better, else -1.
        curves: one row for each curve that was tried, with the estimate as `value` and the ends of
            its interval as `low` and `high`. A curve without a run that ended well has no value; a
            curve with one seed has no interval. `failed` says what became of the failed runs:
            `diverged`, `1 of 3 diverged`, or nothing.
        runs: the runs of these curves.
    """

    axis: str
    sign: int
    curves: pd.DataFrame
    runs: pd.DataFrame

    def notes(self, labels: dict[str, str]) -> list[str]:
        """Lines below a panel: which curves have one seed, and which runs failed."""
        shown = self.curves[self.curves["value"].notna()]
        one_seed = shown[shown["seeds"] == 1]
        names = [style.curve_name(row.method, row.rank, labels) for row in one_seed.itertuples()]
        return [
            *style.one_seed_notes(names, len(shown)),
            *style.failure_notes(self.runs, labels),
        ]

    def sound(self) -> pd.DataFrame:
        """The curves that have a value and no failed run."""
        has_value = self.curves["value"].notna()
        return self.curves[(self.curves["failed"] == "") & has_value]


def groups(
    figure: str, tables: dict[str, pd.DataFrame], labels: dict[str, str]
) -> dict[tuple[str, str], Group]:
    """The curves of each (model, dataset), in the order of the runs.

    Args:
        figure: the name of the figure, for messages.
        tables: `estimates` and `runs`.
        labels: the label of each method.

    Raises:
        ValueError: A curve with a run that ended well has no estimate, or there are no runs. The
            message names the cells.
    """
    curves = _joined(tables["runs"], tables["estimates"])
    missing = curves[curves["estimate"].isna() & (curves["ended"] > 0)]
    if curves.empty or len(missing):
        cells = style.cell_names(missing) or "there are none"
        raise ValueError(f"{figure}: no estimate for the cells of train: {cells}")
    runs_by_panel = style.by_panel(tables["runs"], labels)
    groups_by_panel = {}
    for key, rows in style.by_panel(curves, labels).items():
        if rows["estimate"].notna().any():
            groups_by_panel[key] = _group(rows, runs_by_panel[key])
    return groups_by_panel


def _joined(runs: pd.DataFrame, estimates: pd.DataFrame) -> pd.DataFrame:
    """One row for each curve that was tried, with its estimate if there is one."""
    statuses = runs.groupby(CURVE, sort=False)["status"]
    curves = statuses.agg(failed=style.failed_counts, ended=lambda status: (status == "ok").sum())
    return curves.reset_index().merge(estimates, on=CURVE, how="left", validate="one_to_one")


def _group(curves: pd.DataFrame, runs: pd.DataFrame) -> Group:
    metric = METRICS[curves["metric"].dropna().iloc[0]]
    splits = runs["split"].dropna()
    axis = metric.axis(f" on {splits.iloc[0]}" if len(splits) else "")
    factor = metric.factor
    scaled = curves.assign(
        value=curves["estimate"] * factor,
        low=curves["low"] * factor,
        high=curves["high"] * factor,
    )
    return Group(axis, metric.sign, scaled.reset_index(drop=True), runs)
