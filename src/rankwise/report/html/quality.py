"""The chart of quality by rank, and the layers that it shares with the chart of cost."""

import pandas as pd

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report.html import groups, vega
from rankwise.report.html.groups import Group, Key
from rankwise.report.html.vega import (
    CURVE_COLUMN,
    RUN_COLUMN,
    SEED_COLUMN,
    Chart,
    Column,
    Panel,
)

INTERVAL_COLUMNS: list[Column] = [("low", "from"), ("high", "to"), ("seeds", "seeds")]


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """The chart, if some method has several ranks."""
    chart = _by_rank(groups.by_panel(frames, labels), labels)
    return [chart] if chart.panels else []


# Quality by rank -------------------------------------------------------------------------------


def _by_rank(groups_by_panel: dict[Key, Group], labels: dict[str, str]) -> Chart:
    """One line for each method over its ranks; methods without a rank are level lines."""
    with_ranks = {}
    for key, group in groups_by_panel.items():
        ranks_per_method = group.curves.groupby("method")["rank"].nunique()
        if (ranks_per_method > 1).any():
            with_ranks[key] = group
    legend = vega.method_legend(groups.methods_of(with_ranks), labels)
    panels = [_rank_panel(key, group, labels, legend) for key, group in with_ranks.items()]
    caption = (
        "Mean over seeds by rank. Bars are each curve's own 95 % interval, if the study has them. "
        "Level lines are methods without a rank."
    )
    columns = [CURVE_COLUMN, SEED_COLUMN, ("value", "quality"), RUN_COLUMN]
    return Chart(
        "by-rank", "Quality by rank", caption, panels, legend, columns, "runs", ("metric_by_rank",)
    )


def _rank_panel(key: Key, group: Group, labels: dict[str, str], legend: list[dict]) -> Panel:
    all_curves = group.curves.assign(curve=vega.curve_names(group.curves, labels))
    levels, curves = all_curves[all_curves["rank"] == 0], all_curves[all_curves["rank"] > 0]
    runs = group.runs.dropna(subset=["value"])
    runs = runs.assign(curve=vega.curve_names(runs, labels))
    x = {
        "field": "rank",
        "type": "quantitative",
        "title": "rank",
        "scale": {"type": "log", "base": 2, "nice": False, "padding": 24},
        "axis": {"values": sorted(set(curves["rank"].astype(int))), "format": "d"},
    }
    y = vega.quantity("value", group.axis)
    value = ("value", group.title)
    curve_columns = [CURVE_COLUMN, value, *INTERVAL_COLUMNS]
    marks = dots(
        x,
        y,
        legend,
        curve_columns=curve_columns,
        run_columns=[CURVE_COLUMN, SEED_COLUMN, value, RUN_COLUMN],
        with_intervals=has_intervals(curves),
    )
    layers = [_rank_lines(x, y, legend), *marks]
    if len(levels):
        level_columns = [*curve_columns, RUN_COLUMN]
        layers.insert(0, _level_lines(y, legend, level_columns))
    data = {
        "level": curve_rows(levels, []),
        "curves": curve_rows(curves, []),
        "runs": run_rows(runs[runs["rank"] > 0], []),
    }
    spec = vega.chart_spec(layers, data, f"{group.title} by rank, {' on '.join(key)}.")
    return Panel(key, spec, vega.failure_notes(group.runs, labels))


def _rank_lines(x: dict, y: dict, legend: list[dict]) -> dict:
    return vega.layer(
        "curves",
        {"type": "line", "strokeWidth": 1.6},
        x=x,
        y=y,
        color=vega.encoded("method", legend),
        opacity=vega.focus_opacity(0.8),
    )


def _level_lines(y: dict, legend: list[dict], columns: list[Column]) -> dict:
    return vega.layer(
        "level",
        {"type": "rule", "strokeDash": [5, 3], "strokeWidth": 1.6, "cursor": "pointer"},
        y=y,
        color=vega.encoded("method", legend),
        opacity=vega.focus_opacity(0.9),
        tooltip=vega.tooltip(columns),
    )


# What both charts share ------------------------------------------------------------------------


def curve_rows(curves: pd.DataFrame, more: list[str]) -> list[dict]:
    """Rows of means for a drawing, with the columns `more`."""
    columns = [*CURVE_IN_GROUP, "curve", "value", "low", "high", "seeds", "run", *more]
    return vega.plain_rows(curves[[name for name in columns if name in curves]])


def run_rows(runs: pd.DataFrame, more: list[str]) -> list[dict]:
    """Rows of single runs for a drawing, with the columns `more`."""
    shown = runs[[*CURVE_IN_GROUP, "curve", "seed", "value", "request_digest", *more]]
    return vega.plain_rows(shown.rename(columns={"request_digest": "run"}))


def has_intervals(curves: pd.DataFrame) -> bool:
    """Whether some curve has an interval."""
    return "low" in curves and bool(curves["low"].notna().any())


def dots(
    x: dict,
    y: dict,
    legend: list[dict],
    curve_columns: list[Column],
    run_columns: list[Column],
    with_intervals: bool,
) -> list[dict]:
    """Layers of intervals if there are any, of single runs, and of means."""
    colour, shape = vega.encoded("method", legend), vega.encoded("method", legend, "shape")
    interval = vega.layer(
        "curves",
        {"type": "rule", "strokeWidth": 1.4},
        x=x,
        y={**y, "field": "low", "type": "quantitative"},
        y2={"field": "high"},
        color=colour,
        opacity=vega.focus_opacity(0.9),
    )
    run = vega.layer(
        "runs",
        {"type": "point", "filled": True, "size": 26, "cursor": "pointer"},
        x=x,
        y=y,
        color=colour,
        shape=shape,
        opacity=vega.focus_opacity(0.45),
        tooltip=vega.tooltip(run_columns),
    )
    mean = vega.layer(
        "curves",
        {"type": "point", "filled": True, "size": 90, "cursor": "pointer"},
        x=x,
        y=y,
        color=colour,
        shape=shape,
        opacity=vega.focus_opacity(1),
        tooltip=vega.tooltip(curve_columns),
    )
    return [interval, run, mean] if with_intervals else [run, mean]
