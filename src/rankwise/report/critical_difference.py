"""Figure: curves in the order of their quality, with bars that join undecided and tied curves.

After the critical-difference diagram of Demsar 2006 ("Statistical comparisons of classifiers over
multiple data sets", figure 1), turned by 90 degrees so that many names stay readable. We differ in
two points:

- Curves are joined by the verdicts of the table of comparisons. These are read off simultaneous
  intervals of differences, paired by seed and example, and a tie is an equivalence that was shown.
  Demsar joins them by a test on ranks, which needs more datasets than a study of fine-tuning has.
- With one dataset, the axis is the metric itself, with each curve's own interval.
"""

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from rankwise.report import estimated, palettes, style, verdicts

ROW_HEIGHT = 0.16  # inches
AROUND = 0.62  # inches: a panel's title and axis
FOOT = 0.5  # inches: the legend
LETTER, BESIDE_NAMES = 0.068, 2.4  # inches: a letter of a name, everything beside the names
MAX_ROWS = 48  # curves that a panel shows at most
ALL_BARS = 90  # points: at most the width of all bars
BAR_DISTANCE = 5  # points between two bars, if there are few
FIRST_BAR = 8  # points from the panel to the first bar
LOOKS = {
    "tied": (palettes.PAIRS["tied"], "tied: shown to differ by less than the margin"),
    "undecided": (palettes.PAIRS["undecided"], "not decided between (95 %)"),
}


class Ranking(NamedTuple):
    """A panel.

    Attributes:
        title: its title.
        keys: the (model, dataset)s in it.
        rows: one row for each curve, the best first, with its place `x` and an interval `low`,
            `high` that may be missing.
        lines: the lines of its axis label.
    """

    title: str
    keys: list[tuple[str, str]]
    rows: pd.DataFrame
    lines: list[str]


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw panels from `estimates`, `comparisons` and `runs`.

    A model with several datasets that share curves has one panel, with the mean rank over datasets
    and seeds; otherwise each dataset has a panel. Curves with a failed run are not ranked.

    Raises:
        ValueError: A curve with a run that ended well has no estimate, or there are no runs. The
            message names the cells.
    """
    groups = estimated.groups("critical_difference", tables, labels)
    rankings: list[Ranking] = []
    for model in dict.fromkeys(model for model, _ in groups):
        rankings += _rankings(model, groups, labels)
    rankings = [_best(ranking) for ranking in rankings]
    figure, panels = _panels(rankings, labels)
    comparisons = tables["comparisons"]
    bar_kinds: set[str] = set()
    for axes, ranking in zip(panels, rankings, strict=True):
        keys = zip(comparisons["model"], comparisons["dataset"], strict=True)
        own = comparisons[[key in ranking.keys for key in keys]]
        bar_kinds |= _panel(axes, ranking, verdicts.pair_verdicts(own), labels)
    _legend(figure, bar_kinds)
    return figure


def _panels(rankings: list[Ranking], labels: dict[str, str]) -> tuple[Figure, list[Axes]]:
    heights = [len(ranking.rows) + 0.4 for ranking in rankings]
    line_count = sum(len(ranking.lines) for ranking in rankings)
    height = ROW_HEIGHT * sum(heights) + AROUND * len(rankings) + 0.14 * line_count + FOOT
    longest = max(len(labels[method]) for ranking in rankings for method in ranking.rows["method"])
    width = max(style.COLUMN_WIDTH, BESIDE_NAMES + LETTER * longest)
    return style.stacked(heights, width, height)


def _legend(figure: Figure, bar_kinds: set[str]) -> None:
    handles = []
    for kind, (colour, text) in LOOKS.items():
        if kind in bar_kinds:
            handles.append(Line2D([], [], color=colour, lw=1.6, marker="o", ms=3, label=text))
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower left",
            title="A bar joins the curves that have a dot on it:",
            title_fontsize=8,
            alignment="left",
        )


# What a panel shows ----------------------------------------------------------------------------


def _rankings(
    model: str, groups: dict[tuple[str, str], estimated.Group], labels: dict[str, str]
) -> list[Ranking]:
    """The panels of a model."""
    own_groups = {key: group for key, group in groups.items() if key[0] == model}
    if len(own_groups) > 1:
        joint = _joint(model, own_groups, labels)
        if joint is not None:
            return [joint]
    return [_single(key, group, labels) for key, group in own_groups.items()]


def _single(key: tuple[str, str], group: estimated.Group, labels: dict[str, str]) -> Ranking:
    """Curves by their estimates on one dataset."""
    sound = group.sound()
    rows = sound.assign(x=sound["value"], worth=group.sign * sound["value"])
    rows = rows.sort_values("worth", ascending=False, kind="stable")
    lines = [group.axis.replace("\n", " "), *group.notes(labels)]
    return Ranking(" / ".join(key), [key], rows, lines)


def _joint(
    model: str, groups: dict[tuple[str, str], estimated.Group], labels: dict[str, str]
) -> Ranking | None:
    """Curves by their mean rank over blocks; a block is a dataset and seed.

    Returns:
        None if fewer than two curves are in all blocks.
    """
    losses = [_loss_by_seed(group, dataset) for (_, dataset), group in groups.items()]
    blocks = pd.concat(losses).dropna(axis="columns")
    if blocks.shape[1] < 2:
        return None
    mean_ranks = blocks.rank(axis="columns").mean().rename("x")
    rows = mean_ranks.rename_axis(["method", "rank"]).reset_index()
    rows = rows.sort_values("x", kind="stable").assign(low=float("nan"), high=float("nan"))
    seeds = len(blocks) / len(groups)
    seeds_text = f"{seeds:.3g} seed{'s' if seeds != 1 else ''} each"
    where = f"over {len(blocks)} blocks: {len(groups)} datasets with {seeds_text}"
    notes: list[str] = []
    for group in groups.values():
        notes += style.failure_notes(group.runs, labels)
    lines = [f"mean rank (1 is best)\n{where}", *dict.fromkeys(notes)]
    return Ranking(model, list(groups), rows, lines)


def _loss_by_seed(group: estimated.Group, dataset: str) -> pd.DataFrame:
    """The metric, negated if more is better, by seed (rows) and curve (columns).

    Curves with a failed run are left out.
    """
    metric = group.curves["metric"].dropna().iloc[0]
    runs = group.runs.assign(loss=-group.sign * group.runs[metric], dataset=dataset)
    table = runs.pivot(index=["dataset", "seed"], columns=["method", "rank"], values="loss")
    return table.dropna(axis="columns")


def _best(ranking: Ranking) -> Ranking:
    """The ranking, or its best MAX_ROWS curves and how many there are."""
    count = len(ranking.rows)
    if count <= MAX_ROWS:
        return ranking
    note = f"the best {MAX_ROWS} of {count} curves"
    return ranking._replace(rows=ranking.rows.head(MAX_ROWS), lines=[*ranking.lines, note])


# Drawing ---------------------------------------------------------------------------------------


def _panel(
    axes: Axes,
    ranking: Ranking,
    verdict_by_pair: dict[verdicts.Pair, str],
    labels: dict[str, str],
) -> set[str]:
    """Draw the rows and the bars of a panel; returns the kinds of its bars."""
    for place, row in enumerate(ranking.rows.itertuples()):
        _draw_row(axes, place, row, labels)
    curves = list(zip(ranking.rows["method"], ranking.rows["rank"], strict=True))
    axes.set_title(ranking.title)
    names = [style.curve_name(method, rank, labels) for method, rank in curves]
    axes.set_yticks(range(len(curves)), names)
    for tick, (method, _) in zip(axes.get_yticklabels(), curves, strict=True):
        tick.set_color(style.ink(style.look(method, labels)[0]))
    axes.set_ylim(len(curves) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    bars = _bars(curves, verdict_by_pair)
    for number, (kind, group) in enumerate(bars):
        right = FIRST_BAR + number * min(BAR_DISTANCE, ALL_BARS / len(bars))
        _draw_bar(axes, right, LOOKS[kind][0], [curves.index(curve) for curve in group])
    axes.set_xlabel("\n".join(ranking.lines))
    return {kind for kind, _ in bars}


def _draw_row(axes: Axes, place: int, row: tuple, labels: dict[str, str]) -> None:
    """A dot with its interval; the dot is hollow if the curve has one seed."""
    colour, marker = style.look(row.method, labels)
    axes.plot([row.low, row.high], [place, place], color=colour, lw=0.9, solid_capstyle="butt")
    has_one_seed = getattr(row, "seeds", 2) == 1
    fill = "white" if has_one_seed else colour
    axes.plot(row.x, place, marker=marker, ls="", color=colour, mfc=fill, ms=4, zorder=3)


def _bars(
    curves: list[verdicts.Curve], verdict_by_pair: dict[verdicts.Pair, str]
) -> list[tuple[str, list[verdicts.Curve]]]:
    """Kind and curves of each bar: first tied curves, then curves that nothing decides between.

    A tie decides nothing either, so a group of the second kind that is also tied is left out.
    """
    tied_pairs = {pair for pair, verdict in verdict_by_pair.items() if verdict == "tied"}
    open_pairs = {pair for pair, verdict in verdict_by_pair.items() if verdict != "decided"}
    tied = verdicts.cover(curves, tied_pairs)
    bars = [("tied", group) for group in tied]
    undecided = verdicts.cover(curves, open_pairs)
    return bars + [("undecided", group) for group in undecided if group not in tied]


def _draw_bar(axes: Axes, right: float, colour: str, places: list[int]) -> None:
    """A bar `right` points right of the panel, with a dot at each of its rows."""
    shift = ScaledTranslation(right / 72, 0, axes.figure.dpi_scale_trans)
    where = {"transform": axes.get_yaxis_transform() + shift, "clip_on": False, "color": colour}
    axes.plot([1, 1], [places[0], places[-1]], lw=1.6, solid_capstyle="round", **where)
    axes.plot([1] * len(places), places, "o", ms=3, mew=0, **where)
