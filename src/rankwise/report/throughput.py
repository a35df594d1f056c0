"""Figure: median seconds of a training update by part, with the samples a second that they come to.

Bars, for the parts add up to the whole and the axis starts at nothing. The whisker is the quartiles of the whole update, whose
median is near the bar's end but need not be on it: medians do not add up.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rankwise.report import bars, style
from rankwise.report.latency import DAGGER, add_legend, tainted, time_unit

PARTS = {"forward": style.COLOURS[6], "backward": style.COLOURS[3], "optimizer": style.COLOURS[2]}
RATE = 46  # points right of the panel where the column of rates ends


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel a model and dataset, from `tables["throughput"]`.

    Raises:
        ValueError: the table is empty.
    """
    found = style.groups(tables["throughput"], labels)
    if not found:
        raise ValueError(
            "throughput: no training step was timed: no cell of profile has the measurement throughput"
        )
    figure, grid = bars.panels(found, foot=0.3, width=4.9)
    for axes, rows in zip(grid, found.values(), strict=True):
        _panel(axes, rows.reset_index(drop=True), labels)
    _legend(figure, pd.concat(found.values()))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    sound = rows[rows["status"] == "ok"]
    one, unit = time_unit(sound["update_time_s"].median() if len(sound) else 1)
    for place, row in rows.iterrows():
        if row["status"] == "ok":
            _bar(axes, place, row, one)
        else:
            axes.annotate(
                row["status"].replace("_", " "),
                (0.015, place),
                xycoords=_row(axes),
                va="center_baseline",
            )
        if place and row["method"] != rows["method"][place - 1]:
            axes.axhline(place - 0.5, color=style.GUIDE, linewidth=0.6)
    if len(sound):
        _beside(axes, -1, "samples/s")
    names = [style.name(row.method, row.rank, labels) for row in rows.itertuples()]
    axes.set_yticks(
        range(len(rows)),
        [name + DAGGER * bool(taint) for name, taint in zip(names, tainted(rows), strict=True)],
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, _longest(sound) / one * 1.03 if len(sound) else 1)
    axes.set_xlabel(f"a training update ({unit}){_size(sound)}")
    axes.tick_params(axis="y", length=0, pad=6)
    axes.grid(axis="y", visible=False)


def _bar(axes: Axes, place: int, row: pd.Series, one: float) -> None:
    start = 0.0
    for part, colour in PARTS.items():
        seconds = row.get(f"{part}_time_s")
        if pd.notna(seconds):
            axes.barh(place, seconds / one, left=start, height=0.62, color=colour)
            start += seconds / one
    quartiles = [row["update_time_q1_s"] / one, row["update_time_q3_s"] / one]
    axes.plot(
        quartiles, [place, place], color="black", lw=0.8, marker="|", ms=3.5, mew=0.8, clip_on=True
    )
    _beside(axes, place, style.number(row["throughput_samples_per_s"]))


def _row(axes: Axes) -> object:
    return axes.get_yaxis_transform()


def _beside(axes: Axes, place: int, text: str) -> None:
    where = {"xycoords": _row(axes), "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(text, (1, place), (RATE, 0), ha="right", va="center_baseline", **where)


def _longest(rows: pd.DataFrame) -> float:
    """Seconds that the axis must hold; an upper quartile far beyond every median is cut off."""
    sums = rows[[f"{part}_time_s" for part in PARTS if f"{part}_time_s" in rows]].sum(axis=1)
    return min(max(sums.max(), rows["update_time_q3_s"].max()), 1.5 * sums.max())


def _size(rows: pd.DataFrame) -> str:
    """What an update is made of, where all rows agree."""
    found = rows.reindex(
        columns=["accumulation_steps", "batch_size", "sequence_length_tokens"]
    ).drop_duplicates()
    if len(found) != 1:
        return ""
    steps, size, length = found.iloc[0]
    return f" of {f'{steps:.0f} x ' if steps > 1 else ''}{size:.0f} x {length:.0f} tokens"


def _legend(figure: Figure, rows: pd.DataFrame) -> None:
    shown = [(Patch(color=colour), part) for part, colour in PARTS.items()]
    shown.append((Line2D([], [], color="black", lw=0.8, marker="|", ms=3.5), "quartiles"))
    add_legend(figure, rows, shown, columns=4)
