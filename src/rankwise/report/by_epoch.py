"""Figures of a quantity by epoch.

A line is the mean over seeds; the band around it reaches from the lowest to the highest seed.
"""

import math
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rankwise.report import label_placement, style
from rankwise.report.label_placement import CurveEnd

MAX_CURVES = 8  # curves that a panel still shows well
MAX_SHARED = 4  # so many methods without a rank can be repeated in every panel
DECADE = 8  # from this ratio of highest to lowest on, a logarithmic axis has fewer ticks


class Quantity(NamedTuple):
    """How to plot one column of the history.

    Attributes:
        column: its name in the table.
        axis: the label of the axis.
        factor: values are multiplied by it.
        log: whether the axis is logarithmic.
        common: whether every method reports it.
    """

    column: str
    axis: str
    factor: float = 1.0
    log: bool = False
    common: bool = True


class Part(NamedTuple):
    """One panel.

    Attributes:
        quantity: what it shows.
        title: the last part of its title, or nothing.
        method: the method whose label is the title; its curves are named by their rank alone.
        rows: the rows of the history that it shows, with the quantity as `value`.
        runs: the runs that it shows; their failures are noted below it.
        all_rows: the rows of all panels of this model, dataset and quantity; they set the limits.
    """

    quantity: Quantity
    title: str
    method: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    all_rows: pd.DataFrame


def draw(
    figure: str,
    tables: dict[str, pd.DataFrame],
    labels: dict[str, str],
    quantities: tuple[Quantity, ...],
) -> Figure:
    """Draw panels by model, dataset and quantity; runs that failed are named below their panel.

    Args:
        figure: the name of the figure, for messages.
        tables: `history`, and `runs` for the failures.
        labels: the label of each method.
        quantities: the columns of the history to show.

    Raises:
        ValueError: There is no history for the runs of a panel, or none with any of the
            quantities. The message names the cells.
    """
    history = tables["history"]
    runs = tables.get("runs", history)
    parts = _all_parts(figure, history, runs, labels, quantities)
    if not parts:
        columns = " or ".join(quantity.column for quantity in quantities)
        cells = style.cell_names(history)
        raise ValueError(f"{figure}: no {columns} in the history of the cells {cells}")
    is_large = len(parts) > style.MAX_PANELS
    if is_large:
        highest = [style.at_highest_rank(frame) for frame in (history, runs)]
        parts = _all_parts(figure, *highest, labels, quantities, most=math.inf)
    keys = [key for key, _ in parts]
    most = max(part.rows.groupby(["method", "rank"]).ngroups for _, part in parts)
    width = 4.6 if is_large else style.COLUMN_WIDTH
    height = label_placement.panel_height(most, least=2.6)
    drawing, panels = style.panel_grid(keys, width, height, columns=2)
    if is_large:
        drawing.supxlabel(style.HIGHEST_RANK, x=0.02, ha="left", fontsize=8)
    shown = pd.concat([part.rows for _, part in parts])
    dashes = style.line_styles(shown, labels)
    ends = []
    for axes, (key, part) in zip(panels, parts, strict=True):
        ends.append(_panel(axes, key, part, labels, dashes))
    label_placement.name_ends(drawing, panels, ends)
    return drawing


def _all_parts(
    figure: str,
    history: pd.DataFrame,
    runs: pd.DataFrame,
    labels: dict[str, str],
    quantities: tuple[Quantity, ...],
    most: float = MAX_CURVES,
) -> list[tuple[tuple[str, str], Part]]:
    """All panels, each with its (model, dataset); each has at most so many curves."""
    rows_by_panel = style.by_panel(history, labels)
    runs_by_panel = style.by_panel(runs, labels)
    without_history = [rows for key, rows in runs_by_panel.items() if key not in rows_by_panel]
    if not rows_by_panel or without_history:
        missing = pd.concat([history.iloc[:0], *without_history])
        cells = style.cell_names(missing) or "there are none"
        raise ValueError(f"{figure}: no history for the cells of train: {cells}")
    parts = []
    for key, panel_rows in rows_by_panel.items():
        for quantity in quantities:
            rows = _with_value(panel_rows, quantity)
            if len(rows):
                own_parts = _parts(quantity, rows, runs_by_panel[key], labels, most)
                parts += [(key, part) for part in own_parts]
    return parts


def _with_value(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The rows that have the quantity, with it as `value`."""
    if quantity.column not in rows:
        return rows.iloc[:0]
    value = rows[quantity.column].astype(float) * quantity.factor
    return rows.assign(value=value).dropna(subset="value")


def _parts(
    quantity: Quantity,
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    labels: dict[str, str],
    most: float,
) -> list[Part]:
    """The panels of one model and dataset.

    There is one panel if it can show all curves. Otherwise each method with ranks has a panel,
    which repeats the methods without a rank. If those are too many to repeat, the methods are
    spread over numbered panels in their order.
    """
    runs = _relevant_runs(quantity, rows, runs)
    ranked = list(dict.fromkeys(runs.loc[runs["rank"] > 0, "method"]))
    unranked = list(dict.fromkeys(runs.loc[runs["rank"] == 0, "method"]))
    curve_counts = rows.groupby("method", sort=False)["rank"].nunique()
    one_method = len(ranked) < 2 and len(unranked) <= MAX_CURVES
    if curve_counts.sum() <= most or one_method:
        return [Part(quantity, "", "", rows, runs, rows)]
    if len(unranked) <= MAX_SHARED:
        return [_method_part(quantity, method, rows, runs, labels) for method in ranked]
    pages = _pages(curve_counts.reindex(list(dict.fromkeys(runs["method"])), fill_value=1))
    parts = []
    for number, methods in enumerate(pages, 1):
        shown, shown_runs = (frame[frame["method"].isin(methods)] for frame in (rows, runs))
        title = f"{number} of {len(pages)}"
        parts.append(Part(quantity, title, "", shown, shown_runs, rows))
    return parts


def _relevant_runs(quantity: Quantity, rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the methods that have the quantity.

    A method whose runs all failed has no history. It counts if every method reports the quantity.
    """
    methods = set(rows["method"])
    if "status" in runs and quantity.common:
        methods |= set(runs.loc[runs["status"] != "ok", "method"])
    return runs[runs["method"].isin(methods)]


def _method_part(
    quantity: Quantity,
    method: str,
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    labels: dict[str, str],
) -> Part:
    """A panel for one method, with all methods that have no rank."""
    shown, shown_runs = (
        frame[(frame["rank"] == 0) | (frame["method"] == method)] for frame in (rows, runs)
    )
    return Part(quantity, labels[method], method, shown, shown_runs, rows)


def _pages(curve_counts: pd.Series) -> list[pd.Index]:
    """The methods of each numbered panel, given the number of curves of each method."""
    page_of_method = curve_counts.cumsum().sub(1).floordiv(MAX_CURVES)
    return [page_of_method[page_of_method == page].index for page in page_of_method.unique()]


def _panel(
    axes: Axes,
    key: tuple[str, str],
    part: Part,
    labels: dict[str, str],
    dashes: dict[tuple[str, int], object],
) -> list[CurveEnd]:
    """Draw the curves of a panel and the notes below it; returns the curves' ends."""
    ends, one_seed = [], []
    last_epoch = part.all_rows["epoch"].max()
    labels = {**labels, part.method: ""}  # the title says the method already
    for (method, rank), rows in part.rows.groupby(["method", "rank"], sort=False):
        colour, marker = style.look(method, labels)
        steps = _mean_over_seeds(rows, last_epoch)
        _draw_curve(axes, steps, colour, marker, dashes[method, rank])
        name = style.curve_name(method, rank, labels)
        ends.append(CurveEnd(steps["mean"].iloc[-1], name, style.ink(colour)))
        if rows["seed"].nunique() == 1:
            one_seed.append(name)
    style.set_panel_title(axes, *key, part.title)
    notes = [
        *style.one_seed_notes(one_seed, len(ends)),
        *style.failure_notes(part.runs, labels),
    ]
    axes.set_xlabel("\n".join(["epoch", *notes]))
    _set_axes(axes, part, last_epoch)
    return ends


def _mean_over_seeds(rows: pd.DataFrame, last_epoch: float) -> pd.DataFrame:
    """`epoch`, and `min`, `mean` and `max` over seeds, for each update that has a value."""
    by_update = rows.groupby("update")
    steps = by_update["value"].agg(["min", "mean", "max"])
    steps["epoch"] = by_update["epoch"].first()
    if len(steps) == 1:
        # Nothing was trained: the one value is drawn as a level line.
        steps = pd.concat([steps, steps.assign(epoch=last_epoch)])
    return steps


def _draw_curve(
    axes: Axes, steps: pd.DataFrame, colour: str, marker: str, line_style: object
) -> None:
    epochs = steps["epoch"]
    axes.fill_between(epochs, steps["min"], steps["max"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(epochs, steps["mean"], color=colour, ls=line_style, lw=1.2, marker=marker, ms=2.2)


def _set_axes(axes: Axes, part: Part, last_epoch: float) -> None:
    """Set limits that are common to the panels of one model, dataset and quantity."""
    axes.set_ylabel(part.quantity.axis)
    low, high = part.all_rows["value"].min(), part.all_rows["value"].max()
    if part.quantity.log and low > 0:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.15, high * 1.15)
        subs = (1, 3) if high / low > DECADE else (1, 2, 5)
        axes.yaxis.set_major_locator(LogLocator(10, subs=subs))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        margin = 0.06 * (high - low) or 0.1
        axes.set_ylim(low - margin, high + margin)
    has_whole_epochs = bool(last_epoch >= 1)
    ticks = MaxNLocator(6 if has_whole_epochs else 3, integer=has_whole_epochs)
    axes.xaxis.set_major_locator(ticks)
    axes.set_xlim(0, last_epoch * 1.02 or 1)
