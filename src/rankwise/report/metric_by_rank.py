"""Figure: the final metric by rank with 95 % intervals; methods without a rank are levels with a band."""

import itertools
import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankwise.report import estimated, placing, style

DIRECT = 8  # curves that a panel still shows well
REFERENCES = 4  # methods without a rank that every panel repeats
APART = 0.07  # of the least distance of two ranks: between two methods' points at the same rank


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Panels by model and dataset, from `tables["estimates"]`; what failed, from `tables["runs"]`, is named below.

    Raises:
        ValueError: a curve with a run that ended well has no estimate, or there are no runs; names the cells.
    """
    found = estimated.groups("metric_by_rank", tables, labels)
    parts = [(key, group, *part) for key, group in found.items() for part in _pages(group, labels)]
    figure, panels = style.panels([key for key, *_ in parts], style.COLUMN, height=2.6, columns=2)
    ends = [_panel(axes, *part, labels) for axes, part in zip(panels, parts, strict=True)]
    placing.name_ends(figure, panels, ends)
    return figure


def _pages(group: estimated.Group, labels: dict[str, str]) -> list[tuple[str, estimated.Group]]:
    """The panels of one model and dataset: what each one's title adds, and its curves; no colour twice, if that can be."""
    curves = group.curves
    alone = list(dict.fromkeys(curves.loc[curves["rank"] == 0, "method"]))
    shared = alone if len(alone) <= REFERENCES else []
    rest = [method for method in dict.fromkeys(curves["method"]) if method not in shared]
    number = max(1, math.ceil(len(rest) / (DIRECT - len(shared))))
    pages: list[list[str]] = [[] for _ in range(number)]
    for method in rest:
        colour = style.look(method, labels)[0]
        room = [page for page in pages if len(page) < math.ceil(len(rest) / number)]
        min(
            room, key=lambda page: sum(style.look(other, labels)[0] == colour for other in page)
        ).append(method)
    parts = []
    for place, page in enumerate(pages, 1):
        mine, tried = (
            frame[frame["method"].isin([*shared, *page])] for frame in (curves, group.runs)
        )
        parts.append(
            (f"{place} of {number}" if number > 1 else "", group._replace(curves=mine, runs=tried))
        )
    return parts


def _panel(
    axes: Axes,
    key: tuple[str, str],
    like: estimated.Group,
    title: str,
    group: estimated.Group,
    labels: dict[str, str],
) -> list[tuple]:
    """Draw the curves; returns each one's last value, name and colour. Limits are those of `like`, all of the group."""
    ends, shown = [], group.curves.dropna(subset="value")
    ranks = sorted(set(like.curves["rank"]) - {0})
    least = min((math.log2(b / a) for a, b in itertools.pairwise(ranks)), default=1)
    ranked = list(dict.fromkeys(shown.loc[shown["rank"] > 0, "method"]))
    for method, curve in shown.groupby("method", sort=False):
        colour = style.look(method, labels)[0]
        if method in ranked:
            shift = APART * least * (ranked.index(method) - (len(ranked) - 1) / 2)
            _curve(axes, curve, shift, math.log2(ranks[-1]) + least, labels)
        else:
            _level(axes, curve.iloc[0], colour)
        ends.append((curve["value"].iloc[-1], labels[method], style.ink(colour)))
    style.entitle(axes, *key, title)
    axes.set_ylabel(group.axis)
    axes.set_xlabel(
        "\n".join(["rank (log scale)" if ranks else "no method has a rank", *group.notes(labels)])
    )
    _axes(axes, ranks, least, like.curves)
    return ends


def _axes(axes: Axes, ranks: list[int], least: float, curves: pd.DataFrame) -> None:
    """Ticks at the ranks; limits that are common to the panels of a model and dataset."""
    axes.set_xticks([math.log2(rank) for rank in ranks], [f"{rank:.0f}" for rank in ranks])
    if ranks:
        axes.set_xlim(math.log2(ranks[0]) - 0.3 * least, math.log2(ranks[-1]) + 0.3 * least)
    axes.grid(axis="x", visible=False)
    low, high = curves[["value", "low"]].min().min(), curves[["value", "high"]].max().max()
    margin = 0.05 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def _curve(
    axes: Axes, curve: pd.DataFrame, shift: float, end: float, labels: dict[str, str]
) -> None:
    """A line through the ranks, on to `end`, with a point and its interval at each; hollow where there is none."""
    colour, marker = style.look(curve["method"].iloc[0], labels)
    x = [math.log2(rank) + shift for rank in curve["rank"]]
    axes.plot(
        x,
        curve["value"],
        ls=style.dash(curve["method"].iloc[0], labels),
        color=colour,
        lw=1.0,
        zorder=2,
    )
    axes.plot([x[-1], end], [curve["value"].iloc[-1]] * 2, ":", color=colour, lw=0.6, zorder=1)
    for place, row in zip(x, curve.itertuples(), strict=True):
        has_interval = pd.notna(row.low)
        if has_interval:
            axes.plot(
                [place, place],
                [row.low, row.high],
                color=colour,
                lw=0.9,
                solid_capstyle="butt",
                zorder=2,
            )
        axes.plot(
            place,
            row.value,
            marker,
            color=colour,
            mfc=colour if has_interval else "white",
            ms=3.6,
            zorder=3,
        )


def _level(axes: Axes, row: pd.Series, colour: str) -> None:
    """A method without a rank: a line across, in the band of its interval if it has one."""
    if pd.notna(row["low"]):
        axes.axhspan(row["low"], row["high"], color=colour, alpha=0.13, linewidth=0)
    axes.axhline(
        row["value"],
        color=colour,
        lw=1.0,
        ls="-" if pd.notna(row["low"]) else (0, (4, 2)),
        zorder=1.5,
    )
