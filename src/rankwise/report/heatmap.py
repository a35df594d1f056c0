"""Figure: the final metric by method and rank, one value in each cell.

A frame marks the best estimate, signs mark what is tied with it, and hatches mark failed runs.
"""

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rankwise.report import estimated, style, verdicts

CELL_WIDTH = 0.62  # inches: a column
ROW_HEIGHT = 0.27  # inches
AROUND = 0.62  # inches: a panel's title and axis
DARKEST, LIGHTEST = 0.55, 0.03  # range of the blue colour map on which black text stays readable
CLIPPED = 0.15  # the worst share of the curves has the lightest colour, so that the others differ
MARKS = {"tied": " =", "undecided": " ?", "decided": ""}
LEGEND = {"tied": "=  tied with it", "undecided": "?  not decided"}


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for each model and dataset, from `estimates`, `comparisons` and `runs`.

    Raises:
        ValueError: A curve with a run that ended well has no estimate, or there are no runs. The
            message names the cells.
    """
    groups = estimated.groups("heatmap", tables, labels)
    figure, panels = _panels(groups, labels)
    comparisons = tables["comparisons"]
    marks = set()
    for axes, ((model, dataset), group) in zip(panels, groups.items(), strict=True):
        is_own = (comparisons["model"] == model) & (comparisons["dataset"] == dataset)
        axes.set_title(f"{model} / {dataset}")
        marks |= _panel(axes, group, verdicts.pair_verdicts(comparisons[is_own]), labels)
    legend = ["darker is better, frame: best"]
    legend += [text for mark, text in LEGEND.items() if mark in marks]
    figure.supxlabel("    ".join(legend), x=0.02, ha="left", fontsize=7.5)
    return figure


def _panels(
    groups: dict[tuple[str, str], estimated.Group], labels: dict[str, str]
) -> tuple[Figure, list[Axes]]:
    """A figure whose size fits the names, ranks, methods and notes."""
    heights = [group.curves["method"].nunique() for group in groups.values()]
    most_ranks = max(group.curves["rank"].nunique() for group in groups.values())
    longest_name, note_count = 0, 0
    for group in groups.values():
        longest_name = max(longest_name, *(len(labels[name]) for name in group.curves["method"]))
        note_count += len(group.notes(labels))
    width = max(style.COLUMN_WIDTH, 0.075 * longest_name + CELL_WIDTH * most_ranks + 0.15)
    height = ROW_HEIGHT * sum(heights) + AROUND * len(groups) + 0.14 * note_count + 0.3
    return style.stacked(heights, width, height)


def _panel(
    axes: Axes,
    group: estimated.Group,
    verdict_by_pair: dict[verdicts.Pair, str],
    labels: dict[str, str],
) -> set[str]:
    """Draw the cells of a panel; returns the verdicts that its marks stand for."""
    methods = list(dict.fromkeys(group.curves["method"]))
    ranks = sorted(set(group.curves["rank"]))
    sound = group.sound()
    best = sound.loc[(group.sign * sound["value"]).idxmax()] if len(sound) else None
    shades = _shades(group)
    shown = set()
    for i, row in group.curves.iterrows():
        is_best = best is not None and i == best.name
        verdict = "decided"
        if best is not None and not is_best:
            verdict = _verdict_against(best, row, verdict_by_pair)
        if row["failed"] == "":
            shown.add(verdict)
        corner = (ranks.index(row["rank"]), methods.index(row["method"]))
        _draw_cell(axes, corner, row, shades[i], is_best)
        _write_value(axes, corner, row, is_best, MARKS[verdict])
    _set_axes(axes, methods, ranks, labels)
    lines = [f"rank; the cells: {group.axis.splitlines()[0]}", *group.notes(labels)]
    axes.set_xlabel("\n".join(lines))
    return shown


def _set_axes(axes: Axes, methods: list[str], ranks: list[int], labels: dict[str, str]) -> None:
    axes.set_xlim(0, len(ranks))
    axes.set_ylim(len(methods), 0)
    rank_names = [f"{rank:.0f}" if rank else "no rank" for rank in ranks]
    axes.set_xticks([place + 0.5 for place in range(len(ranks))], rank_names)
    method_names = [labels[method] for method in methods]
    axes.set_yticks([place + 0.5 for place in range(len(methods))], method_names)
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        tick.set_color(style.ink(style.look(method, labels)[0]))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _shades(group: estimated.Group) -> pd.Series:
    """The colour of each curve: the better, the darker; white without a value."""
    worth = group.sign * group.curves["value"]
    low, high = worth.quantile(CLIPPED), worth.max()
    if high > low:
        share = ((worth - low) / (high - low)).clip(0, 1)
    else:
        share = worth.where(worth.isna(), 1.0)  # all values are the same: all are the best
    blues = colormaps["Blues"]

    def shade(part: float) -> object:
        return blues(LIGHTEST + (DARKEST - LIGHTEST) * part) if pd.notna(part) else "white"

    return share.map(shade)


def _verdict_against(
    best: pd.Series, row: pd.Series, verdict_by_pair: dict[verdicts.Pair, str]
) -> str:
    pair = frozenset([(best["method"], best["rank"]), (row["method"], row["rank"])])
    return verdict_by_pair.get(pair, "undecided")


def _draw_cell(
    axes: Axes, corner: tuple[int, int], row: pd.Series, shade: object, is_best: bool
) -> None:
    edge = {"edgecolor": "white", "linewidth": 1.5}
    if row["failed"]:
        edge = {"hatch": "////", "edgecolor": "#B0B0B0", "linewidth": 0}
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=shade, **edge))
    if is_best:
        frame = {"edgecolor": "black", "linewidth": 1.4, "zorder": 4, "clip_on": False}
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, **frame))


def _write_value(
    axes: Axes, corner: tuple[int, int], row: pd.Series, is_best: bool, mark: str
) -> None:
    """Write the value and its mark, or what became of the runs if none ended well."""
    has_value, has_failed = pd.notna(row["value"]), row["failed"] != ""
    if not has_value:
        text = row["failed"].replace("out of memory", "out of\nmemory")
    else:
        text = style.number(row["value"]) + ("" if has_failed else mark)
    backdrop = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
    axes.text(
        corner[0] + 0.5,
        corner[1] + 0.5,
        text,
        ha="center",
        va="center",
        fontsize=8 if has_value else 7,
        weight="bold" if is_best else "normal",
        bbox=backdrop if has_failed else None,
        linespacing=0.95,
    )
