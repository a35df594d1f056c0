"""Horizontal stacked bars, one for each method and rank: what figures of costs share."""

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rankwise.report import palettes, style

WIDTH = 4.6  # inches: a figure
ROW = 0.17  # inches: the height of a row
AROUND = 0.66  # inches: a panel's title and axis
MAX_ROWS = 48  # rows of a panel in which every rank is shown
BAR = 0.72  # height of a bar as a share of its row
HEADS = 0.12  # inches: heads of columns of numbers
Parts = dict[str, tuple[str, str]]  # column -> name and colour of the part that it holds


def panels(
    rows_by_panel: dict[tuple[str, ...], pd.DataFrame],
    foot: float,
    width: float = WIDTH,
    has_heads: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel for each key, as high as its rows need.

    A high figure has several columns of panels.

    Args:
        rows_by_panel: the rows of each panel; the parts of a key are its title.
        foot: inches below the panels, for a legend.
        width: the width of the figure in inches.
        has_heads: whether columns of numbers right of the panels have heads, below the titles.
    """
    heights = [len(rows) + 0.2 for rows in rows_by_panel.values()]  # in rows, as the limits are
    around = AROUND + HEADS if has_heads else AROUND
    total_height = sum(heights) * ROW + len(rows_by_panel) * around + foot
    figure, grid = style.stacked(heights, width, total_height)
    for axes, key in zip(grid, rows_by_panel, strict=True):
        axes.set_title(" / ".join(key), pad=15 if has_heads else None)
    return figure, grid


def fewer(
    rows_by_panel: dict[tuple[str, ...], pd.DataFrame],
) -> tuple[dict[tuple[str, ...], pd.DataFrame], list[str]]:
    """The rows of each panel; of too many methods and ranks, the lowest and highest ranks.

    Returns:
        The rows, and a line for the legend that says what is left out.
    """
    counts = [len(rows[["method", "rank"]].drop_duplicates()) for rows in rows_by_panel.values()]
    if max(counts) <= MAX_ROWS:
        return rows_by_panel, []
    shown = {}
    for key, rows in rows_by_panel.items():
        ranks = rows.groupby("method", sort=False)["rank"]
        is_end = (rows["rank"] == ranks.transform("min")) | (rows["rank"] == ranks.transform("max"))
        shown[key] = rows[is_end]
    return shown, ["Of each method: its lowest and its highest rank. All are in the table."]


def stack(
    axes: Axes, rows: pd.DataFrame, parts: Parts, labels: dict[str, str], divisor: float = 1.0
) -> pd.Series:
    """Draw the parts of each row end to end, and write the status of rows that are not ok.

    Args:
        axes: the panel.
        rows: one row for each bar, numbered from 0.
        parts: the columns to stack; a column that the rows lack is skipped.
        labels: the label of each method.
        divisor: values are divided by it, for a unit that fits.

    Returns:
        The end of each bar.
    """
    left = pd.Series(0.0, rows.index)
    for column, (_, colour) in parts.items():
        if column in rows:
            width = rows[column].astype(float).fillna(0) / divisor
            axes.barh(rows.index, width, left=left, color=colour, height=BAR, linewidth=0)
            left += width
    for place, row in rows.iterrows():
        if row["status"] != "ok":
            text_beside(axes, place, left[place], style.status_text(row["status"]))
    style.rows_axis(axes, row_names(rows, labels), pad=4)
    return left


def text_beside(axes: Axes, row: int, end: float, text: str) -> None:
    """Write text right of a bar's end."""
    axes.annotate(
        text,
        (end, row),
        (3, 0),
        textcoords="offset points",
        va="center_baseline",
        annotation_clip=False,
    )


def row_names(rows: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """Names of rows: a method's label at its first row only, then the ranks alone."""
    is_repeated = rows["method"].eq(rows["method"].shift())
    names = []
    for row, again in zip(rows.itertuples(), is_repeated, strict=True):
        if again and row.rank:
            names.append(style.rank_name(row.rank))
        else:
            names.append(style.curve_name(row.method, row.rank, labels))
    return names


def separate_methods(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw a thin line between two rows of different methods."""
    for place in range(1, len(rows)):
        if rows["method"][place] != rows["method"][place - 1]:
            axes.axhline(place - 0.5, color=palettes.GUIDE, linewidth=0.6)


def legend(
    figure: Figure,
    parts: Parts,
    table: pd.DataFrame,
    more_handles: list[Artist],
    notes: list[str],
) -> None:
    """A legend below the panels: notes, the parts that some row has, then further handles."""
    handles: list[Artist] = []
    for column, (name, colour) in parts.items():
        if column in table and table[column].astype(float).sum():
            handles.append(Patch(color=colour, label=name))
    figure.legend(
        handles=[*handles, *more_handles],
        loc="outside lower left",
        ncols=3,
        handlelength=1.1,
        columnspacing=1.2,
        **style.legend_notes(notes),
    )
