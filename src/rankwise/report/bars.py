"""Horizontal stacked bars, one a method and rank: what figures of costs share."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rankwise.report import style

WIDTH, ROW, AROUND = 4.6, 0.17, 0.66  # inches: figure, one row, a panel's title and axis
Parts = dict[str, tuple[str, str]]  # column -> its name and colour


def panels(
    found: dict[tuple[str, ...], pd.DataFrame],
    foot: float,
    width: float = WIDTH,
    around: float = AROUND,
) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel a key, as high as its rows; `foot` inches are for what stands below them."""
    heights = [len(rows) + 0.2 for rows in found.values()]  # in rows, as each panel's limits are
    figure = style.canvas(width, sum(heights) * ROW + len(found) * around + foot)
    grid = list(figure.subplots(len(found), squeeze=False, height_ratios=heights)[:, 0])
    for axes, key in zip(grid, found, strict=True):
        axes.set_title(" / ".join(key))
    return figure, grid


def stack(
    axes: Axes, rows: pd.DataFrame, parts: Parts, labels: dict[str, str], per: float = 1.0
) -> pd.Series:
    """Draw each row's parts end to end, divided by `per`; write a status that is not ok. Returns the totals."""
    left = pd.Series(0.0, rows.index)
    for column, (_, colour) in parts.items():
        if column in rows:
            width = rows[column].astype(float).fillna(0) / per
            axes.barh(rows.index, width, left=left, color=colour, height=0.72, linewidth=0)
            left += width
    for place, row in rows.iterrows():
        if row["status"] != "ok":
            beside(axes, place, left[place], row["status"].replace("_", " "))
    axes.set_yticks(rows.index, names(rows, labels))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, pad=4)
    axes.grid(axis="y", visible=False)
    return left


def beside(axes: Axes, place: int, end: float, text: str) -> None:
    """Text right of a bar's end."""
    axes.annotate(
        text,
        (end, place),
        (3, 0),
        textcoords="offset points",
        va="center_baseline",
        annotation_clip=False,
    )


def names(rows: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """A method's name at its first row only; then the ranks alone."""
    repeated = rows["method"].eq(rows["method"].shift())
    return [
        style.rank_name(row.rank) if again else style.name(row.method, row.rank, labels)
        for row, again in zip(rows.itertuples(), repeated, strict=True)
    ]


def legend(
    figure: Figure, parts: Parts, frame: pd.DataFrame, others: list | None = None, columns: int = 3
) -> None:
    """Below the panels: every part that some row has, and other handles."""
    shown = [
        (name, colour)
        for column, (name, colour) in parts.items()
        if column in frame and frame[column].astype(float).sum()
    ]
    handles = [Patch(color=colour, label=name) for name, colour in shown] + (others or [])
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=columns,
        handlelength=1.1,
        columnspacing=1.2,
    )
