"""Figure: bytes of optimizer state by method and rank, with the saving against full fine-tuning with AdamW.

Dots on a logarithmic axis: the sizes span three orders of magnitude, and a bar's length would say nothing there.
"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rankwise.report import bars, style

SIZE, SAVING = 52, 98  # points right of the panel where the two columns of numbers end


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel a model and dataset, from `tables["memory"]`.

    Raises:
        ValueError: the table is empty.
    """
    found = style.groups(tables["memory"], labels)
    if not found:
        raise ValueError("memory: no memory profile: no cell of profile has the measurement memory")
    figure, grid = bars.panels(found, foot=0.25)
    for axes, rows in zip(grid, found.values(), strict=True):
        _panel(axes, rows.reset_index(drop=True), labels)
    _legend(figure, pd.concat(found.values()))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    sizes = rows["optimizer_state_bytes"].where(rows["status"] == "ok").astype(float)
    positive = sizes[sizes > 0]
    one, unit = style.unit(math.sqrt(positive.min() * positive.max()) if len(positive) else 1)
    full = sizes[(rows["method"] == "full") & (rows["rank"] == 0)]
    _axis(axes, positive / one, unit)
    for place, row in rows.iterrows():
        colour = style.look(row["method"], labels)[0]
        _dot(axes, place, sizes[place] / one, colour, _is_measured(row))
        if place and row["method"] != rows["method"][place - 1]:
            axes.axhline(place - 0.5, color=style.GUIDE, linewidth=0.6)
        if row["status"] != "ok":
            _beside(axes, place, row["status"].replace("_", " "), SAVING)
            continue
        _beside(axes, place, _label(sizes[place]), SIZE)
        if len(full) and place != full.index[0]:
            _beside(axes, place, _saving(sizes[place] / full.iloc[0]), SAVING)
    if len(full):
        _beside(axes, -1, f"vs {labels['full']}", SAVING)
    axes.set_yticks(range(len(rows)), bars.names(rows, labels))
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _beside(axes: Axes, place: int, text: str, right: float) -> None:
    """Text that ends `right` points right of the panel."""
    where = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(
        text,
        (1, place),
        (right, 0),
        ha="right",
        va="center_baseline",
        annotation_clip=False,
        **where,
    )


def _axis(axes: Axes, sizes: pd.Series, unit: str) -> None:
    axes.set_xscale("log")
    low, high = (sizes.min(), sizes.max()) if len(sizes) else (1, 1)
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.xaxis.set_major_locator(
        LogLocator(10, subs=(1,) if high / low > 100 else (1, 3) if high / low > 8 else (1, 2, 5))
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel(f"optimizer state ({unit}, log scale)")
    axes.tick_params(axis="y", length=0, pad=6)
    axes.grid(axis="y", visible=False)


def _dot(axes: Axes, place: int, size: float, colour: str, measured: bool) -> None:
    """A dot at `size`, filled if the bytes were also counted; at 0, which a log axis lacks, an arrow at the edge."""
    look = {
        "color": colour,
        "markerfacecolor": colour if measured else "white",
        "ms": 4.5,
        "clip_on": False,
        "zorder": 3,
    }
    if size == 0:
        axes.plot(0, place, "<", transform=axes.get_yaxis_transform(), **look)
    elif size > 0:
        axes.plot(size, place, "o", **look)


def _is_measured(row: pd.Series) -> bool:
    return bool(pd.notna(row.get("measured_optimizer_state_bytes")))


def _label(size: float) -> str:
    """The size in its own unit, whatever the axis has."""
    one, unit = style.unit(size)
    return f"{style.number(size / one)} {unit}" if size else "0 B"


def _saving(share: float) -> str:
    """The change against AdamW in percent; a saving that is not whole never reads 100."""
    percent = 100 * (share - 1)
    digits = 0 if share == 0 else 1 if abs(percent) < 99.95 or share > 1 else 3
    sign = style.MINUS if percent < 0 else "+"
    return f"{sign}{abs(percent):.{digits}f} %"


def _legend(figure: Figure, rows: pd.DataFrame) -> None:
    measured = rows[rows["status"] == "ok"].apply(_is_measured, axis=1)
    texts = {True: "predicted, and counted after a real step", False: "predicted from shapes"}
    shown = [kind for kind in texts if (measured == kind).any()]
    dots = [
        Line2D([], [], color="black", marker="o", ms=4.5, ls="", mfc="black" if k else "white")
        for k in shown
    ]
    figure.legend(
        dots, [texts[kind] for kind in shown], loc="outside lower left", ncols=2, handletextpad=0.2
    )
