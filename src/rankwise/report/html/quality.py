"""Charts of what training reached: quality against memory, and quality by rank."""

import pandas as pd

from rankwise.analysis.variant_costs import with_variants
from rankwise.core.keys import CURVE, CURVE_IN_GROUP
from rankwise.report import style
from rankwise.report.html import groups, vega
from rankwise.report.html.groups import Group, Key
from rankwise.report.html.vega import (
    COMMAND_COLUMN,
    CURVE_COLUMN,
    RUN_COLUMN,
    SEED_COLUMN,
    Chart,
    Column,
    Panel,
)

INTERVAL_COLUMNS: list[Column] = [("low", "from"), ("high", "to"), ("seeds", "seeds")]
# Two texts are too near if both distances, as shares of the range of the dots, are below these.
NEAR_X, NEAR_Y = 0.06, 0.08


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """The charts that the study has the tables for."""
    groups_by_panel = groups.by_panel(frames, labels)
    both = [
        _against_memory(groups_by_panel, _memory(frames), labels),
        _by_rank(groups_by_panel, labels),
    ]
    return [chart for chart in both if chart is not None and chart.panels]


# Quality against memory ------------------------------------------------------------------------


def _memory(frames: dict[str, pd.DataFrame]) -> pd.DataFrame | None:
    """The table of memory, in which a variant has the rows of a profile that holds for it."""
    if "memory" not in frames or "runs" not in frames:
        return frames.get("memory")
    return with_variants(frames["memory"], frames["runs"])


def _against_memory(
    groups_by_panel: dict[Key, Group], memory: pd.DataFrame | None, labels: dict[str, str]
) -> Chart | None:
    """Means, and faintly every run, over the bytes kept between steps; bars are intervals."""
    if memory is None:
        return None
    kept = memory.assign(kept=memory[vega.KEPT].astype(float).sum(axis=1, skipna=False))
    kept_bytes = kept.set_index(CURVE)["kept"]
    known = set(kept_bytes.dropna().index)
    profiled = {
        key: group
        for key, group in groups_by_panel.items()
        if known.intersection(_cells(group.curves, key))
    }
    legend = vega.method_legend(groups.methods_of(profiled), labels)
    panels = []
    for key, group in profiled.items():
        panels.append(_memory_panel(key, group, kept_bytes, labels, legend))
    caption = (
        "Each large mark is a method at a rank: the mean over its seeds. Bars are each curve's own "
        "95 % interval, if the study has them. Small marks are single runs: click one to see it. "
        "Memory is what training keeps between steps: weights, gradients and optimizer state."
    )
    columns = [
        CURVE_COLUMN,
        SEED_COLUMN,
        ("value", "quality"),
        ("size", "memory kept"),
        RUN_COLUMN,
        COMMAND_COLUMN,
    ]
    title = "Quality against memory"
    return Chart("against-memory", title, caption, panels, legend, columns, "runs")


def _cells(rows: pd.DataFrame, key: Key) -> list[tuple]:
    curves = zip(rows["method"], rows["rank"], strict=True)
    return [(*key, method, rank) for method, rank in curves]


def _memory_panel(
    key: Key, group: Group, kept_bytes: pd.Series, labels: dict[str, str], legend: list[dict]
) -> Panel:
    largest = max(kept_bytes.get(cell, 0) for cell in _cells(group.curves, key))
    unit_bytes, unit = style.byte_unit(largest)

    def with_size(rows: pd.DataFrame) -> pd.DataFrame:
        sizes = [kept_bytes.get(cell, float("nan")) / unit_bytes for cell in _cells(rows, key)]
        named = rows.assign(curve=vega.curve_names(rows, labels), size=sizes)
        return named.dropna(subset=["size", "value"])

    curves, runs = with_size(group.curves), with_size(group.runs)
    x = vega.quantity("size", f"kept between steps ({unit})", zero=True)
    y = vega.quantity("value", group.axis)
    value, size = ("value", group.title), ("size", f"memory ({unit})")
    line = vega.layer(
        "curves",
        {"type": "line", "strokeWidth": 1.2},
        x=x,
        y=y,
        color=vega.encoded("method", legend),
        opacity=vega.focus_opacity(0.6),
    )
    dots = _dots(
        x,
        y,
        legend,
        curve_columns=[CURVE_COLUMN, value, *INTERVAL_COLUMNS, size],
        run_columns=[CURVE_COLUMN, SEED_COLUMN, value, size, RUN_COLUMN, COMMAND_COLUMN],
        with_intervals=_has_intervals(curves),
    )
    texts = vega.layer(
        "curves",
        {"type": "text", "align": "left", "dx": 8, "dy": -7, "fontSize": 11, "color": vega.QUIET},
        x=x,
        y=y,
        text={"field": "text", "type": "nominal"},
        opacity=vega.focus_opacity(1),
    )
    data = {
        "curves": _curve_rows(curves.assign(text=_rank_texts(curves)), ["size", "text"]),
        "runs": _run_rows(runs, ["size"]),
    }
    title = " on ".join(key)
    description = f"{group.title} against memory kept between steps, {title}."
    spec = vega.chart_spec([line, *dots, texts], data, description)
    return Panel(title, spec, vega.failure_notes(group.runs, labels))


def _rank_texts(curves: pd.DataFrame) -> list[str]:
    """The rank beside each dot, or nothing if another text is too near."""
    x_range = max(curves["size"].max() - curves["size"].min(), 1e-12)
    y_range = max(curves["value"].max() - curves["value"].min(), 1e-12)
    placed: list[tuple[float, float]] = []
    texts = []
    for row in curves.itertuples():
        x, y = row.size / x_range, row.value / y_range
        is_free = all(
            abs(x - other_x) > NEAR_X or abs(y - other_y) > NEAR_Y for other_x, other_y in placed
        )
        if row.rank > 0 and is_free:
            placed.append((x, y))
            texts.append(style.rank_name(row.rank))
        else:
            texts.append("")
    return texts


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
    columns = [CURVE_COLUMN, SEED_COLUMN, ("value", "quality"), RUN_COLUMN, COMMAND_COLUMN]
    return Chart("by-rank", "Quality by rank", caption, panels, legend, columns, "runs")


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
    dots = _dots(
        x,
        y,
        legend,
        curve_columns=curve_columns,
        run_columns=[CURVE_COLUMN, SEED_COLUMN, value, RUN_COLUMN, COMMAND_COLUMN],
        with_intervals=_has_intervals(curves),
    )
    layers = [_rank_lines(x, y, legend), *dots]
    if len(levels):
        level_columns = [*curve_columns, RUN_COLUMN, COMMAND_COLUMN]
        layers.insert(0, _level_lines(y, legend, level_columns))
    data = {
        "level": _curve_rows(levels, []),
        "curves": _curve_rows(curves, []),
        "runs": _run_rows(runs[runs["rank"] > 0], []),
    }
    title = " on ".join(key)
    spec = vega.chart_spec(layers, data, f"{group.title} by rank, {title}.")
    return Panel(title, spec, vega.failure_notes(group.runs, labels))


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


def _curve_rows(curves: pd.DataFrame, more: list[str]) -> list[dict]:
    columns = [*CURVE_IN_GROUP, "curve", "value", "low", "high", "seeds", "run", *more]
    return vega.plain_rows(curves[[name for name in columns if name in curves]])


def _run_rows(runs: pd.DataFrame, more: list[str]) -> list[dict]:
    shown = runs[[*CURVE_IN_GROUP, "curve", "seed", "value", "request_digest", *more]]
    return vega.plain_rows(shown.rename(columns={"request_digest": "run"}))


def _has_intervals(curves: pd.DataFrame) -> bool:
    return "low" in curves and bool(curves["low"].notna().any())


def _dots(
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
