"""Figure: the final metric against the bytes kept between steps, with their Pareto front."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankwise.analysis import metrics
from rankwise.analysis.fronts import is_on_front
from rankwise.analysis.seed_means import mean_over_seeds
from rankwise.analysis.variant_costs import with_variants
from rankwise.core.keys import CURVE, CURVE_IN_GROUP
from rankwise.report import label_placement, palettes, style
from rankwise.report.label_placement import Mark
from rankwise.study.grids import base_name

PARTS = ["weights_bytes", "quantization_bytes", "gradients_bytes", "optimizer_state_bytes"]
BOTTOM = 0.04  # height of the cross of a failed run, as a share of the panel
FRONT_NOTE = "grey: front of the means (less memory, better)"
# Up to so many dots are all named. With more, a legend names the methods, and the dots at the ends
# of each line are labelled by their rank. With more methods than MAX_LINES, only the dots on the
# front are named, and the panels are larger.
MAX_NAMED = 8
MAX_LINES = 8
ALL, ENDS, ON_FRONT = "all", "ends", "front"  # which dots are named
LARGE = (5.0, 4.2)  # inches: a panel with many methods


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for each model and dataset that `runs` and `memory` have in common.

    Large marks are means over seeds, faint marks single seeds. A curve with a failed run is never
    on the front, for the mean of the seeds that ended well would favour it.

    A variant whose memory was not profiled is named below its panel.

    Raises:
        ValueError: A run of a panel has no memory profile and is of no variant, or there is no
            panel. The message names the cells.
    """
    runs_by_panel = _panels(tables["runs"], tables["memory"], labels)
    means_by_panel = {key: _means(runs) for key, runs in runs_by_panel.items()}
    named = _which_are_named(means_by_panel.values())
    size = LARGE if named == ON_FRONT else (style.COLUMN_WIDTH, 3.2)
    figure, panels = style.panel_grid(runs_by_panel, *size, columns=2)
    marks_by_panel = []
    for axes, (key, means) in zip(panels, means_by_panel.items(), strict=True):
        marks_by_panel.append(_panel(axes, runs_by_panel[key], means, labels, named))
    if named != ALL:
        _legend(figure, pd.concat(means_by_panel.values()), labels, named, len(panels))
    # The layout, and with it the place of each dot in pixels, is known only once it is drawn.
    figure.draw_without_rendering()
    for axes, marks in zip(panels, marks_by_panel, strict=True):
        _place_labels(axes, marks)
    return figure


def _which_are_named(means: Iterable[pd.DataFrame]) -> str:
    panels = list(means)
    if max(map(len, panels)) <= MAX_NAMED:
        return ALL
    methods = max(panel["method"].nunique() for panel in panels)
    return ENDS if methods <= MAX_LINES else ON_FRONT


def _place_labels(axes: Axes, marks: list[tuple]) -> None:
    in_pixels = []
    for transform, x, y, text, colour in marks:
        in_pixels.append(Mark(*transform.transform((x, y)), text, colour))
    avoid = [point for line in axes.lines for point in _points_on(line)]
    label_placement.place_labels(axes, in_pixels, avoid)


# What a panel shows ----------------------------------------------------------------------------


def _panels(
    runs: pd.DataFrame, memory: pd.DataFrame, labels: dict[str, str]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Runs of each panel, with `kept_bytes` and the metric that the panel shows as `value`."""
    memory = with_variants(memory, runs)
    kept_bytes = memory[PARTS].astype(float).sum(axis=1, skipna=False)
    sizes = memory[CURVE].assign(kept_bytes=kept_bytes)
    joined = runs.merge(sizes, on=CURVE, how="left", validate="many_to_one")
    profiled = style.by_panel(memory, labels)
    runs_by_panel = {}
    for key, rows in style.by_panel(joined, labels).items():
        if key in profiled:
            runs_by_panel[key] = _with_value(rows)
    if not runs_by_panel:
        raise ValueError(_missing_message(joined))
    is_plain = joined["method"].map(base_name) == joined["method"]
    lacking = joined[joined["kept_bytes"].isna() & (joined["status"] == "ok") & is_plain]
    keys = zip(lacking["model"], lacking["dataset"], strict=True)
    missing = lacking[[key in runs_by_panel for key in keys]]
    if len(missing):
        raise ValueError(_missing_message(missing))
    return runs_by_panel


def _missing_message(rows: pd.DataFrame) -> str:
    cells = style.cell_names(rows) or "there are none"
    return f"accuracy_memory: no memory profile for the cells of train: {cells}"


def _with_value(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the metric as `value`, in the unit of its axis."""
    metric = metrics.of_runs(runs)
    values = runs.get(metric.name, pd.Series(np.nan, runs.index)).astype(float)
    return runs.assign(value=metric.factor * values)


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    """For each curve: kept bytes, mean value over seeds, and what became of failed runs."""
    name = metrics.of_runs(runs).name
    curves = runs.groupby(CURVE_IN_GROUP, sort=False)
    means = curves.agg(
        kept_bytes=("kept_bytes", "first"),
        value=("value", lambda values: mean_over_seeds(values, name)),
    )
    return means.assign(failed=curves["status"].agg(style.failed_counts)).reset_index()


# Drawing ---------------------------------------------------------------------------------------


def _panel(
    axes: Axes,
    runs: pd.DataFrame,
    means: pd.DataFrame,
    labels: dict[str, str],
    named: str,
) -> list[tuple]:
    """Draw the dots of a panel.

    Returns:
        What to label: transform of the coordinates, x, y, text, colour.
    """
    unit_bytes, unit = style.byte_unit(runs["kept_bytes"].max())
    runs = runs.assign(size=runs["kept_bytes"] / unit_bytes)
    means = means.assign(size=means["kept_bytes"] / unit_bytes)
    less_is_better = metrics.of_runs(runs).sign < 0
    front = _front(means, less_is_better)
    means = means.assign(on_front=means.index.isin(front.index))
    _draw_front(axes, front, means["size"].max())
    marks = []
    for method, curve in means.groupby("method", sort=False):
        _draw_method(axes, runs[runs["method"] == method], curve, *style.look(method, labels))
        marks += _marks(axes, curve, labels, named)
    _set_axes(axes, runs, unit, means)
    lines = [axes.get_xlabel(), FRONT_NOTE]
    for curve in means[means["kept_bytes"].isna()].itertuples():
        name = style.curve_name(curve.method, curve.rank, labels)
        lines.append(f"{name}: {', '.join(filter(None, [curve.failed, 'no memory profile']))}")
    axes.set_xlabel("\n".join(lines))
    return marks


def _draw_method(
    axes: Axes, runs: pd.DataFrame, curve: pd.DataFrame, colour: str, marker: str
) -> None:
    """Faint marks for seeds, a line through the means, crosses at the bottom for failed runs."""
    seed_look = {"color": colour, "alpha": 0.35, "ms": 2.5, "mew": 0}
    axes.plot(runs["size"], runs["value"], marker=marker, ls="", **seed_look)
    means = curve.dropna(subset=["size", "value"])
    look = {"color": colour, "marker": marker, "ms": 4.5, "lw": 0.8, "zorder": 3}
    axes.plot(means["size"], means["value"], "-", **look)
    failed = _failed(curve)
    cross = {"transform": axes.get_xaxis_transform(), "color": colour, "ms": 5, "zorder": 3}
    axes.plot(failed["size"], [BOTTOM] * len(failed), "x", **cross)


def _failed(curve: pd.DataFrame) -> pd.DataFrame:
    return curve[(curve["failed"] != "") & curve["size"].notna()]


def _marks(axes: Axes, curve: pd.DataFrame, labels: dict[str, str], named: str) -> list[tuple]:
    """The points of one method that get a label."""
    means = curve.dropna(subset=["size", "value"])
    if named == ENDS:
        means = means.iloc[sorted({0, len(means) - 1})]
    elif named == ON_FRONT:
        means = means[means["on_front"]]
    ink = style.ink(style.look(curve["method"].iloc[0], labels)[0])
    marks = []
    for point in means.itertuples():
        text = _text(point, labels, named)
        marks.append((axes.transData, point.size, point.value, text, ink))
    for point in _failed(curve).itertuples():
        text = f"{_text(point, labels, named)}: {point.failed}"
        marks.append((axes.get_xaxis_transform(), point.size, BOTTOM, text, ink))
    return marks


def _text(point: tuple, labels: dict[str, str], named: str) -> str:
    if named != ENDS or not point.rank:
        return style.curve_name(point.method, point.rank, labels)
    return style.rank_name(point.rank)


def _front(means: pd.DataFrame, less_is_better: bool) -> pd.DataFrame:
    """The means that no other mean dominates, from the smallest on."""
    has_point = means["size"].notna() & means["value"].notna()
    sound = means[(means["failed"] == "") & has_point]
    if sound.empty:
        return sound
    score = -sound["value"] if less_is_better else sound["value"]
    return sound[is_on_front(sound["size"], score)].sort_values(["size", "value"])


def _draw_front(axes: Axes, front: pd.DataFrame, largest: float) -> None:
    """Steps through the front, on to the largest size: more memory is never worse than less."""
    if front.empty:
        return
    x = [*front["size"], largest]
    y = [*front["value"], front["value"].iloc[-1]]
    look = {"color": palettes.FRONT, "lw": 3.5, "solid_capstyle": "round", "zorder": 1}
    axes.plot(x, y, drawstyle="steps-post", **look)


def _points_on(line: Line2D) -> np.ndarray:
    """Points on a drawn line and its markers, in pixels, (n, 2)."""
    corners = line.get_transform().transform(line.get_xydata())
    if line.get_linestyle() == "None" or len(corners) < 2:
        return corners
    place = np.linspace(0, len(corners) - 1, 6 * len(corners))
    x, y = (np.interp(place, range(len(corners)), corners[:, axis]) for axis in (0, 1))
    return np.column_stack([x, y])


def _set_axes(axes: Axes, runs: pd.DataFrame, unit: str, means: pd.DataFrame) -> None:
    splits = runs["split"].dropna()
    split = f" on {splits.iloc[0]}" if len(splits) else ""
    axes.set_ylabel(metrics.of_runs(runs).axis(split))
    axes.set_xlabel(
        f"weights + gradients + optimizer state ({unit}),\nkept between steps, without activations"
    )
    axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
    low, high = axes.get_ylim()
    room_below = 0.14 if (means["failed"] != "").any() else 0.03  # for the crosses
    axes.set_ylim(low - room_below * (high - low), high + 0.05 * (high - low))


def _legend(
    figure: Figure, means: pd.DataFrame, labels: dict[str, str], named: str, panel_count: int
) -> None:
    """Each method's look and its ranks, in the order in which the line joins them.

    Ranks that all methods share are said once.
    """
    ranks_by_method = {}
    for method, rows in style.ordered(means, labels).groupby("method", sort=False):
        ranks_by_method[method] = tuple(sorted(set(rows["rank"]) - {0}))
    distinct = {ranks for ranks in ranks_by_method.values() if ranks}
    handles = []
    for method, ranks in ranks_by_method.items():
        colour, marker = style.look(method, labels)
        name = labels[method]
        if ranks and len(distinct) > 1:
            name = f"{name}, r={_listed(ranks)}"
        handles.append(Line2D([], [], color=colour, marker=marker, ls="", ms=5, label=name))
    shared = next(iter(distinct)) if len(distinct) == 1 else ()
    notes = [f"A line joins r={_listed(shared)}."] if len(shared) > 1 else []
    if named == ON_FRONT:
        notes.append("Named in the panels: curves on the front, and failed ones.")
    columns = 3 if named == ENDS else 2 * min(2, panel_count)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        handletextpad=0.2,
        **style.legend_notes(notes),
    )


def _listed(ranks: tuple[int, ...]) -> str:
    return ", ".join(f"{rank:.0f}" for rank in ranks)
