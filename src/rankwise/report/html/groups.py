"""The runs of each model and dataset, with the metric that they report and its estimates."""

import pandas as pd

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import style

Key = tuple[str, str]  # model and dataset


class Group:
    """The runs of one model on one dataset.

    Attributes:
        metric: the column of the metric: accuracy if some run has one, otherwise perplexity.
        factor: what values are multiplied by for a reader.
        title: the metric with its unit.
        axis: the title of an axis: the metric, and the split that it is on.
        runs: the runs, with the scaled metric as `value`.
        curves: one row for each curve with a run that ended well: its estimate (the mean over
            seeds without one) as `value`, the ends of its interval as `low` and `high` if the study
            has intervals, the number of its seeds, and the digest of its first run.
    """

    def __init__(self, runs: pd.DataFrame, estimates: pd.DataFrame | None):
        has_accuracy = "accuracy_fraction" in runs and runs["accuracy_fraction"].notna().any()
        self.metric = "accuracy_fraction" if has_accuracy else "perplexity"
        self.factor = 100 if has_accuracy else 1
        self.title = "accuracy (%)" if has_accuracy else "perplexity"
        splits = runs["split"].dropna() if "split" in runs else []
        self.axis = f"{self.title}, {splits.iloc[0]}" if len(splits) else self.title
        values = runs.get(self.metric, pd.Series(dtype=float)).astype(float)
        self.runs = runs.assign(value=values * self.factor)
        self.curves = self._curves(estimates)

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric is an accuracy, for which higher is better."""
        return self.metric == "accuracy_fraction"

    @property
    def best(self) -> pd.Series:
        """The curve with the best estimate."""
        lower_is_better = not self.is_accuracy
        return self.curves.sort_values("value", ascending=lower_is_better, kind="stable").iloc[0]

    def _curves(self, estimates: pd.DataFrame | None) -> pd.DataFrame:
        ended = self.runs[self.runs["value"].notna()]
        curves = ended.groupby(CURVE_IN_GROUP, sort=False).agg(
            value=("value", "mean"), seeds=("seed", "nunique"), run=("request_digest", "first")
        )
        if estimates is not None:
            own = estimates[estimates["metric"] == self.metric].set_index(CURVE_IN_GROUP)
            scaled = own[["estimate", "low", "high"]] * self.factor
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
