"""Figure: curves in the order of their quality, and bars that join those between which nothing is decided.

After the critical-difference diagram of Demsar 2006 ("Statistical comparisons of classifiers over multiple data sets", figure
1), turned so that names of any number stay readable. Two things are ours. What joins curves are the verdicts of the table of
comparisons (paired by seed and example, adjusted after Holm; a tie is an equivalence that was shown), not a test on ranks,
which needs more datasets than such studies have. And with one dataset the axis is the metric itself, with its intervals.
"""

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from rankwise.report import estimated, style, verdicts

ROW, AROUND, FOOT = 0.16, 0.62, 0.5  # inches: a row, a panel's title and axis, the legend
WIDEST, BAR, FIRST = (
    90,
    5,
    8,
)  # points: of all bars, between two of a few, and from the panel to the first one
LOOKS = {
    "tied": ("black", "tied: shown to differ by less than the margin"),
    "undecided": ("#9A9A9A", "not decided between (95 %, Holm)"),
}


class Ranking(NamedTuple):
    """A panel: title, the (model, dataset)s in it, curves from the best on with `x` (and `low`, `high`), lines of its axis."""

    title: str
    keys: list[tuple[str, str]]
    rows: pd.DataFrame
    lines: list[str]


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel a model, from `tables["estimates"]`, `["comparisons"]` and `["runs"]`; curves with a failed run are not ranked.

    With several datasets that have curves in common, the mean rank over datasets and seeds; otherwise a panel a dataset.

    Raises:
        ValueError: a curve with a run that ended well has no estimate, or there are no runs; names the cells.
    """
    found = estimated.groups("critical_difference", tables, labels)
    rankings = [
        one
        for model in dict.fromkeys(key[0] for key in found)
        for one in _rankings(model, found, labels)
    ]
    heights = [len(one.rows) + 0.4 for one in rankings]
    lines = sum(len(one.lines) for one in rankings)
    height = ROW * sum(heights) + AROUND * len(rankings) + 0.14 * lines + FOOT
    figure = style.canvas(style.COLUMN, height)
    grid = figure.subplots(len(rankings), squeeze=False, height_ratios=heights)[:, 0]
    used = set()
    for axes, one in zip(grid, rankings, strict=True):
        pairs = zip(tables["comparisons"]["model"], tables["comparisons"]["dataset"], strict=True)
        comparisons = tables["comparisons"][[key in one.keys for key in pairs]]
        used |= _panel(axes, one, verdicts.pairs(comparisons), labels)
    handles = [
        Line2D([], [], color=look[0], lw=1.6, marker="o", ms=3, label=look[1])
        for k, look in LOOKS.items()
        if k in used
    ]
    if handles:
        title = "A bar joins the curves that have a dot on it:"
        figure.legend(
            handles=handles,
            loc="outside lower left",
            title=title,
            title_fontsize=8,
            alignment="left",
        )
    return figure


def _rankings(
    model: str, found: dict[tuple[str, str], estimated.Group], labels: dict[str, str]
) -> list[Ranking]:
    """The panels of a model."""
    own = {key: group for key, group in found.items() if key[0] == model}
    if len(own) > 1 and (joint := _joint(model, own, labels)):
        return [joint]
    return [_single(key, group, labels) for key, group in own.items()]


def _single(key: tuple[str, str], group: estimated.Group, labels: dict[str, str]) -> Ranking:
    """Curves by their estimates on one dataset."""
    sound = group.curves[(group.curves["failed"] == "") & group.curves["value"].notna()]
    rows = sound.assign(x=sound["value"], worth=group.sign * sound["value"]).sort_values(
        "worth", ascending=False, kind="stable"
    )
    return Ranking(
        " / ".join(key), [key], rows, [group.axis.replace("\n", " "), *group.notes(labels)]
    )


def _joint(
    model: str, own: dict[tuple[str, str], estimated.Group], labels: dict[str, str]
) -> Ranking | None:
    """Curves by their mean rank over blocks, each a dataset and seed; None with fewer than two curves in all of them."""
    blocks = pd.concat([_ranks(group, dataset) for (_, dataset), group in own.items()]).dropna(
        axis="columns"
    )
    if blocks.shape[1] < 2:
        return None
    ranks = blocks.rank(axis="columns").mean()
    rows = (
        ranks.rename("x")
        .rename_axis(["method", "rank"])
        .reset_index()
        .sort_values("x", kind="stable")
    )
    seeds = len(blocks) / len(own)
    where = f"over {len(blocks)} blocks: {len(own)} datasets with {seeds:.3g} seed{'s' * (seeds != 1)} each"
    notes = dict.fromkeys(
        line for group in own.values() for line in style.failed(group.runs, labels)
    )
    return Ranking(
        model,
        list(own),
        rows.assign(low=float("nan"), high=float("nan")),
        [f"mean rank (1 is best)\n{where}", *notes],
    )


def _ranks(group: estimated.Group, dataset: str) -> pd.DataFrame:
    """The metric by seed and curve, its sign turned so that less is better; curves with a failed run are left out."""
    metric = group.curves["metric"].dropna().iloc[0]
    worth = group.runs.assign(worth=-group.sign * group.runs[metric], dataset=dataset)
    return worth.pivot(
        index=["dataset", "seed"], columns=["method", "rank"], values="worth"
    ).dropna(axis="columns")


def _panel(axes: Axes, one: Ranking, pairs: dict, labels: dict[str, str]) -> set[str]:
    """Draw the rows and the bars; returns the kinds of bars."""
    for place, row in enumerate(one.rows.itertuples()):
        colour, marker = style.look(row.method, labels)
        axes.plot([row.low, row.high], [place, place], color=colour, lw=0.9, solid_capstyle="butt")
        hollow = getattr(row, "seeds", 2) == 1
        axes.plot(
            row.x, place, marker, color=colour, mfc="white" if hollow else colour, ms=4, zorder=3
        )
    curves = list(zip(one.rows["method"], one.rows["rank"], strict=True))
    axes.set_title(one.title)
    axes.set_yticks(range(len(curves)), [style.name(*curve, labels) for curve in curves])
    for tick, (method, _) in zip(axes.get_yticklabels(), curves, strict=True):
        tick.set_color(style.ink(style.look(method, labels)[0]))
    axes.set_ylim(len(curves) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    bars = _bars(curves, pairs)
    for number, (kind, group) in enumerate(bars):
        right = FIRST + number * min(BAR, WIDEST / len(bars))
        _bar(axes, right, LOOKS[kind][0], [curves.index(curve) for curve in group])
    axes.set_xlabel("\n".join(one.lines))
    return {kind for kind, _ in bars}


def _bars(curves: list[verdicts.Curve], pairs: dict) -> list[tuple[str, list[verdicts.Curve]]]:
    """Kind and members of every bar: the tied, and those not decided between, unless they are the same."""
    tied = verdicts.cover(curves, {pair for pair, verdict in pairs.items() if verdict == "tied"})
    loose = verdicts.cover(
        curves, {pair for pair, verdict in pairs.items() if verdict != "decided"}
    )
    return [
        *(("tied", group) for group in tied),
        *(("undecided", group) for group in loose if group not in tied),
    ]


def _bar(axes: Axes, right: float, colour: str, places: list[int]) -> None:
    """A bar `right` points from the panel, with a dot at each of its rows."""
    shift = ScaledTranslation(right / 72, 0, axes.figure.dpi_scale_trans)
    where = {"transform": axes.get_yaxis_transform() + shift, "clip_on": False, "color": colour}
    axes.plot([1, 1], [places[0], places[-1]], lw=1.6, solid_capstyle="round", **where)
    axes.plot([1] * len(places), places, "o", ms=3, mew=0, **where)
