"""Figure: the final metric by rank with 95 % intervals.

A method without a rank is a level line in the band of its interval.
"""

import itertools
import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankwise.report import estimated, label_placement, style
from rankwise.report.label_placement import CurveEnd

MAX_METHODS = 8  # methods that a panel still shows well
MAX_PANELS = 8  # more panels stand in three columns, and are wider because names are longer
WIDE = 4.4  # inches
MAX_SHARED = 4  # so many methods without a rank can be repeated in every panel
# Distance of two methods' points at the same rank, as a share of the least distance of two ranks.
APART = 0.07


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw panels by model and dataset, from `estimates`; failed runs of `runs` are named below.

    Raises:
        ValueError: A curve with a run that ended well has no estimate, or there are no runs. The
            message names the cells.
    """
    groups = estimated.groups("metric_by_rank", tables, labels)
    parts = []
    for key, group in groups.items():
        for title, page in _pages(group, labels):
            parts.append((key, group, title, page))
    keys = [key for key, *_ in parts]
    is_large = len(parts) > MAX_PANELS
    width = WIDE if is_large else style.COLUMN_WIDTH
    figure, panels = style.panel_grid(keys, width, height=2.6, columns=3 if is_large else 2)
    ends = []
    for axes, (key, group, title, page) in zip(panels, parts, strict=True):
        style.set_panel_title(axes, *key, title)
        ends.append(_panel(axes, group.curves, page, labels))
    label_placement.name_ends(figure, panels, ends)
    return figure


def _pages(group: estimated.Group, labels: dict[str, str]) -> list[tuple[str, estimated.Group]]:
    """The panels of one model and dataset: the last part of each title, and its curves.

    Methods without a rank are repeated in every panel if they are few. Each other method goes to
    the panel that has its colour least often, so that no panel has a colour twice if possible.
    """
    curves = group.curves
    unranked = list(dict.fromkeys(curves.loc[curves["rank"] == 0, "method"]))
    shared = unranked if len(unranked) <= MAX_SHARED else []
    others = [method for method in dict.fromkeys(curves["method"]) if method not in shared]
    page_count = max(1, math.ceil(len(others) / (MAX_METHODS - len(shared))))
    parts = []
    pages = _spread_colours(others, page_count, labels) or [[]]
    page_count = len(pages)
    for number, methods in enumerate(pages, 1):
        own, own_runs = (
            frame[frame["method"].isin([*shared, *methods])] for frame in (curves, group.runs)
        )
        title = f"{number} of {page_count}" if page_count > 1 else ""
        parts.append((title, group._replace(curves=own, runs=own_runs)))
    return parts


def _spread_colours(methods: list[str], page_count: int, labels: dict[str, str]) -> list[list[str]]:
    """Divide methods evenly among pages, so that a page has each colour as rarely as possible.

    Variants are on the page of their method, to be compared with it.
    """
    most = math.ceil(len(methods) / page_count)
    pages: list[list[str]] = [[] for _ in range(page_count)]
    colours: list[list[str]] = [[] for _ in range(page_count)]
    for _, group in itertools.groupby(methods, style.base):
        family = list(group)
        colour = style.look(family[0], labels)[0]
        with_room = [i for i in range(page_count) if len(pages[i]) + len(family) <= most]
        with_room = with_room or [min(range(page_count), key=lambda i: len(pages[i]))]
        counts = [colours[i].count(colour) for i in with_room]
        chosen = with_room[counts.index(min(counts))]
        pages[chosen] += family
        colours[chosen].append(colour)
    return [page for page in pages if page]


def _panel(
    axes: Axes, all_curves: pd.DataFrame, group: estimated.Group, labels: dict[str, str]
) -> list[CurveEnd]:
    """Draw the curves of a panel and the notes below it.

    Args:
        axes: the panel.
        all_curves: the curves of all panels of this model and dataset; they set the limits.
        group: the curves to draw.
        labels: the label of each method.

    Returns:
        The ends of the curves.
    """
    shown = group.curves.dropna(subset="value")
    ranks = sorted(set(all_curves["rank"]) - {0})
    distances = (math.log2(high / low) for low, high in itertools.pairwise(ranks))
    least_distance = min(distances, default=1)
    ranked = list(dict.fromkeys(shown.loc[shown["rank"] > 0, "method"]))
    ends = []
    for method, curve in shown.groupby("method", sort=False):
        colour = style.look(method, labels)[0]
        if method in ranked:
            from_middle = ranked.index(method) - (len(ranked) - 1) / 2
            shift = APART * least_distance * from_middle
            _draw_curve(axes, curve, shift, math.log2(ranks[-1]) + least_distance, labels)
        else:
            _draw_level(axes, curve.iloc[0], colour)
        ends.append(CurveEnd(curve["value"].iloc[-1], labels[method], style.ink(colour)))
    axes.set_ylabel(group.axis)
    rank_text = "rank (log scale)" if ranks else "no method has a rank"
    axes.set_xlabel("\n".join([rank_text, *group.notes(labels)]))
    _set_axes(axes, ranks, least_distance, all_curves)
    return ends


def _set_axes(
    axes: Axes, ranks: list[int], least_distance: float, all_curves: pd.DataFrame
) -> None:
    """Ticks at the ranks; limits that are common to the panels of a model and dataset.

    The axis is the base-2 logarithm of the rank, not matplotlib's log scale, so that the points of
    two methods at a rank can be shifted by equal distances.
    """
    axes.set_xticks([math.log2(rank) for rank in ranks], [f"{rank:.0f}" for rank in ranks])
    if ranks:
        margin = 0.3 * least_distance
        axes.set_xlim(math.log2(ranks[0]) - margin, math.log2(ranks[-1]) + margin)
    axes.grid(axis="x", visible=False)
    low = all_curves[["value", "low"]].min().min()
    high = all_curves[["value", "high"]].max().max()
    margin = 0.05 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def _draw_curve(
    axes: Axes, curve: pd.DataFrame, shift: float, end: float, labels: dict[str, str]
) -> None:
    """A line through the ranks, continued to `end`, with points and their intervals.

    A point without an interval is hollow.
    """
    method = curve["method"].iloc[0]
    colour, marker = style.look(method, labels)
    x = [math.log2(rank) + shift for rank in curve["rank"]]
    line_style = style.dash(method, labels)
    axes.plot(x, curve["value"], ls=line_style, color=colour, lw=1.0, zorder=2)
    axes.plot([x[-1], end], [curve["value"].iloc[-1]] * 2, ":", color=colour, lw=0.6, zorder=1)
    for place, row in zip(x, curve.itertuples(), strict=True):
        has_interval = pd.notna(row.low)
        if has_interval:
            bar = {"color": colour, "lw": 0.9, "solid_capstyle": "butt", "zorder": 2}
            axes.plot([place, place], [row.low, row.high], **bar)
        fill = colour if has_interval else "white"
        look = {"marker": marker, "ls": "", "color": colour, "mfc": fill, "ms": 3.6}
        axes.plot(place, row.value, zorder=3, **look)


def _draw_level(axes: Axes, row: pd.Series, colour: str) -> None:
    """A method without a rank: a line across, in the band of its interval; dashed without one."""
    has_interval = pd.notna(row["low"])
    if has_interval:
        axes.axhspan(row["low"], row["high"], color=colour, alpha=0.13, linewidth=0)
    line_style = "-" if has_interval else (0, (4, 2))
    axes.axhline(row["value"], color=colour, lw=1.0, ls=line_style, zorder=1.5)
