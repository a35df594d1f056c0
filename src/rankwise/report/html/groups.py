"""The runs of each model and dataset, with the metric that they report and its estimates."""

import pandas as pd

from rankwise.analysis import metrics
from rankwise.analysis.seed_means import mean_over_seeds
from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import style

Key = tuple[str, str]  # model and dataset


class Group:
    """The runs of one model on one dataset.

    Attributes:
        metric: the metric by which the runs are compared.
        title: the metric with its unit.
        axis: the title of an axis: the metric, and the split that it is on.
        runs: the runs, with the scaled metric as `value`.
        curves: one row for each curve with a run that ended well: its estimate (the mean over
            seeds without one) as `value`, the ends of its interval as `low` and `high` if the study
            has intervals, the number of its seeds, and the digest of its first run.
    """

    def __init__(self, runs: pd.DataFrame, estimates: pd.DataFrame | None):
        self.metric = metrics.of_runs(runs)
        self.title = self.metric.title
        splits = runs["split"].dropna() if "split" in runs else []
        self.axis = f"{self.title}, {splits.iloc[0]}" if len(splits) else self.title
        values = runs.get(self.metric.name, pd.Series(dtype=float)).astype(float)
        self.runs = runs.assign(value=values * self.metric.factor)
        self.curves = self._curves(estimates)

    @property
    def best(self) -> pd.Series:
        """The curve with the best estimate."""
        less_is_better = self.metric.sign < 0
        return self.curves.sort_values("value", ascending=less_is_better, kind="stable").iloc[0]

    def _curves(self, estimates: pd.DataFrame | None) -> pd.DataFrame:
        ended = self.runs[self.runs["value"].notna()]
        curves = ended.groupby(CURVE_IN_GROUP, sort=False).agg(
            value=("value", lambda values: mean_over_seeds(values, self.metric.name)),
            seeds=("seed", "nunique"),
            run=("request_digest", "first"),
        )
        if estimates is not None:
            own = estimates[estimates["metric"] == self.metric.name].set_index(CURVE_IN_GROUP)
            scaled = own[["estimate", "low", "high"]] * self.metric.factor
            curves = curves.join(scaled.astype(float))
            curves["value"] = curves.pop("estimate").fillna(curves["value"])
        return curves.reset_index()


def by_panel(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> dict[Key, Group]:
    """The group of each model and dataset that has a run that ended well."""
    if "runs" not in frames:
        return {}
    groups = {}
    for key, runs in style.by_panel(frames["runs"], labels).items():
        group = Group(runs, _own(frames.get("estimates"), key))
        if len(group.curves):
            groups[key] = group
    return groups


def _own(estimates: pd.DataFrame | None, key: Key) -> pd.DataFrame | None:
    if estimates is None:
        return None
    model, dataset = key
    return estimates[(estimates["model"] == model) & (estimates["dataset"] == dataset)]


def methods_of(groups: dict[Key, Group]) -> list[str]:
    """The methods of all curves."""
    methods: list[str] = []
    for group in groups.values():
        methods += group.curves["method"].tolist()
    return methods
