"""Figure: the final metric by method and rank, its value in each cell; the best, those tied with it, and what failed."""

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rankwise.report import estimated, style, verdicts

CELL, ROW, AROUND = 0.62, 0.27, 0.62  # inches: a column, a row, a panel's title and axis
DARKEST, LIGHTEST = 0.55, 0.03  # of the map of blues: black text stays readable on all of it
CLIPPED = 0.15  # of the curves, the worst: all in the lightest colour, so that the others differ
MARKS = {"tied": " =", "undecided": " ?", "decided": ""}
LEGEND = {"tied": "=  tied with it", "undecided": "?  not decided"}


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel a model and dataset, from `tables["estimates"]`, `["comparisons"]` and `["runs"]`.

    Raises:
        ValueError: a curve with a run that ended well has no estimate, or there are no runs; names the cells.
    """
    found = estimated.groups("heatmap", tables, labels)
    columns = {key: sorted(set(group.curves["rank"])) for key, group in found.items()}
    heights = [group.curves["method"].nunique() for group in found.values()]
    names = max(
        len(labels[method]) for group in found.values() for method in group.curves["method"]
    )
    notes = sum(len(group.notes(labels)) for group in found.values())
    width = max(style.COLUMN, 0.075 * names + CELL * max(map(len, columns.values())) + 0.15)
    figure = style.canvas(width, ROW * sum(heights) + AROUND * len(found) + 0.14 * notes + 0.3)
    grid = figure.subplots(len(found), squeeze=False, height_ratios=heights)[:, 0]
    marks = set()
    for axes, (key, group) in zip(grid, found.items(), strict=True):
        comparisons = tables["comparisons"]
        own = comparisons[(comparisons["model"] == key[0]) & (comparisons["dataset"] == key[1])]
        axes.set_title(" / ".join(key))
        marks |= _panel(axes, group, verdicts.pairs(own), columns[key], labels)
    shown = [
        "darker is better, frame: best",
        *(text for mark, text in LEGEND.items() if mark in marks),
    ]
    figure.supxlabel("    ".join(shown), x=0.02, ha="left", fontsize=7.5)
    return figure


def _panel(
    axes: Axes, group: estimated.Group, pairs: dict, ranks: list[int], labels: dict[str, str]
) -> set[str]:
    """Draw the cells; returns which marks they have."""
    methods = list(dict.fromkeys(group.curves["method"]))
    sound = group.curves[(group.curves["failed"] == "") & group.curves["value"].notna()]
    best = sound.loc[(group.sign * sound["value"]).idxmax()] if len(sound) else None
    shades, used = _shades(group), set()
    for i, row in group.curves.iterrows():
        x, y = ranks.index(row["rank"]), methods.index(row["method"])
        is_best = best is not None and i == best.name
        verdict = "decided" if best is None or is_best else _against(best, row, pairs)
        used.add(verdict if row["failed"] == "" else "decided")
        _cell(axes, x, y, row, shades[i], is_best, verdict)
    axes.set_xlim(0, len(ranks))
    axes.set_ylim(len(methods), 0)
    axes.set_xticks(
        [i + 0.5 for i in range(len(ranks))],
        [f"{rank:.0f}" if rank else "no rank" for rank in ranks],
    )
    axes.set_yticks([i + 0.5 for i in range(len(methods))], [labels[method] for method in methods])
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        tick.set_color(style.ink(style.look(method, labels)[0]))
    axes.set_xlabel(
        "\n".join([f"rank; the cells: {group.axis.splitlines()[0]}", *group.notes(labels)])
    )
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    return used


def _shades(group: estimated.Group) -> pd.Series:
    """A colour a curve, darker the better it is; white without a value."""
    worth = group.sign * group.curves["value"]
    low, high = worth.quantile(CLIPPED), worth.max()
    share = (
        ((worth - low) / (high - low)).clip(0, 1) if high > low else worth.where(worth.isna(), 1.0)
    )
    blues = colormaps["Blues"]
    return share.map(
        lambda part: blues(LIGHTEST + (DARKEST - LIGHTEST) * part) if pd.notna(part) else "white"
    )


def _against(best: pd.Series, row: pd.Series, pairs: dict) -> str:
    """What the comparisons say of a curve and the best."""
    return pairs.get(
        frozenset([(best["method"], best["rank"]), (row["method"], row["rank"])]), "undecided"
    )


def _cell(
    axes: Axes, x: int, y: int, row: pd.Series, shade: object, is_best: bool, verdict: str
) -> None:
    failed = row["failed"] != ""
    hatch = (
        {"hatch": "////", "edgecolor": "#B0B0B0", "linewidth": 0}
        if failed
        else {"edgecolor": "white", "linewidth": 1.5}
    )
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shade, **hatch))
    if is_best:
        axes.add_patch(
            Rectangle(
                (x, y), 1, 1, fill=False, edgecolor="black", linewidth=1.4, zorder=4, clip_on=False
            )
        )
    number = "" if pd.isna(row["value"]) else style.number(row["value"])
    text = (
        number + MARKS[verdict] * (not failed)
        if number
        else row["failed"].replace("out of memory", "out of\nmemory")
    )
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8} if failed else None
    weight = "bold" if is_best else "normal"
    size = 8 if number else 7
    axes.text(
        x + 0.5,
        y + 0.5,
        text,
        ha="center",
        va="center",
        fontsize=size,
        weight=weight,
        bbox=box,
        linespacing=0.95,
    )
