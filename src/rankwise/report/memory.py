"""Figure: bytes of optimizer state by method and rank, with the change against full AdamW.

Dots on a logarithmic axis: the sizes span three orders of magnitude, and the length of a bar would
mean nothing on such an axis.
"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rankwise.report import bars, palettes, style

REFERENCE = "full"
SIZE_END, CHANGE_END = 52, 98  # points right of the panel at which the two columns of numbers end


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for each model and dataset, from `memory`.

    Raises:
        ValueError: The table is empty.
    """
    rows_by_panel = style.by_panel(tables["memory"], labels)
    if not rows_by_panel:
        raise ValueError("memory: no memory profile: no cell of profile has the measurement memory")
    rows_by_panel, notes = bars.fewer(rows_by_panel)
    figure, panels = bars.panels(rows_by_panel, foot=0.25, has_heads=True)
    for axes, rows in zip(panels, rows_by_panel.values(), strict=True):
        _panel(axes, rows.reset_index(drop=True), labels)
    _legend(figure, pd.concat(rows_by_panel.values()), notes)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    sizes = rows["optimizer_state_bytes"].where(rows["status"] == "ok").astype(float)
    positive = sizes[sizes > 0]
    middle = math.sqrt(positive.min() * positive.max()) if len(positive) else 1
    unit_bytes, unit = style.byte_unit(middle)
    references = sizes[(rows["method"] == REFERENCE) & (rows["rank"] == 0)]
    _set_axis(axes, positive / unit_bytes, unit)
    for place, row in rows.iterrows():
        colour = style.look(row["method"], labels)[0]
        _draw_dot(axes, place, sizes[place] / unit_bytes, colour, _is_measured(row))
        if row["status"] != "ok":
            text = style.status_text(row["status"])
            style.text_right_of_panel(axes, place, text, CHANGE_END)
            continue
        style.text_right_of_panel(axes, place, _size_text(sizes[place]), SIZE_END)
        if len(references) and place != references.index[0]:
            text = _change_text(sizes[place] / references.iloc[0])
            style.text_right_of_panel(axes, place, text, CHANGE_END)
    if len(references):
        style.text_right_of_panel(axes, -1, f"vs {labels[REFERENCE]}", CHANGE_END)
    bars.separate_methods(axes, rows)
    style.rows_axis(axes, bars.row_names(rows, labels), pad=6)


def _set_axis(axes: Axes, sizes: pd.Series, unit: str) -> None:
    axes.set_xscale("log")
    low, high = (sizes.min(), sizes.max()) if len(sizes) else (1, 1)
    axes.set_xlim(low / 1.6, high * 1.6)
    if high / low > 100:
        subs = (1,)
    elif high / low > 8:
        subs = (1, 3)
    else:
        subs = (1, 2, 5)
    axes.xaxis.set_major_locator(LogLocator(10, subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel(f"optimizer state ({unit}, log scale)")


def _draw_dot(axes: Axes, place: int, size: float, colour: str, is_measured: bool) -> None:
    """A dot at `size`, filled if the bytes were also counted after a real step.

    A size of 0 has no place on a logarithmic axis; it is an arrow at the left edge.
    """
    fill = colour if is_measured else "white"
    look = {"color": colour, "mfc": fill, "ms": 4.5, "clip_on": False, "zorder": 3}
    if size == 0:
        axes.plot(0, place, "<", transform=axes.get_yaxis_transform(), **look)
    elif size > 0:
        axes.plot(size, place, "o", **look)


def _is_measured(row: pd.Series) -> bool:
    return bool(pd.notna(row.get("measured_optimizer_state_bytes")))


def _size_text(size_bytes: float) -> str:
    """The size in a unit that fits it, whatever unit the axis has."""
    unit_bytes, unit = style.byte_unit(size_bytes)
    return f"{style.number(size_bytes / unit_bytes)} {unit}" if size_bytes else "0 B"


def _change_text(share: float) -> str:
    """The change against AdamW in percent, or how many times as much; 0 bytes alone read -100 %."""
    if share >= 10:
        return f"\N{MULTIPLICATION SIGN}{share:,.0f}"
    percent = 100 * (share - 1)
    if share == 0:
        digits = 0
    elif abs(percent) < 99.95 or share > 1:
        digits = 1
    else:
        digits = 3
    sign = style.MINUS if percent < 0 else "+"
    return f"{sign}{abs(percent):.{digits}f} %"


def _legend(figure: Figure, rows: pd.DataFrame, notes: list[str]) -> None:
    is_measured = rows[rows["status"] == "ok"].apply(_is_measured, axis=1)
    handles = []
    for measured, fill, text in (
        (True, palettes.SAMPLE, "predicted, and counted after a real step"),
        (False, "white", "predicted from shapes"),
    ):
        if (is_measured == measured).any():
            dot = {"color": palettes.SAMPLE, "marker": "o", "ms": 4.5, "ls": "", "mfc": fill}
            handles.append(Line2D([], [], label=text, **dot))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=2,
        handletextpad=0.2,
        **style.legend_notes(notes),
    )
