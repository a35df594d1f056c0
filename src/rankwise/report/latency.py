"""Figure: latency of the forward pass against batch size, un-merged and merged.

The marks are medians; the bars are quartiles.

Both axes are logarithmic: where a curve rises with slope one, the device is fully used. With a
single batch size, the sequence lengths take its place. With a single length as well there is no
curve to draw, and the figure shows dots by method.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rankwise.report import bars, label_placement, palettes, style
from rankwise.report.label_placement import CurveEnd

MAX_CURVES = 6  # curves that a panel still shows well if each is drawn un-merged and merged
SIZE, LENGTH = "batch_size", "sequence_length_tokens"
QUARTILES = ["forward_latency_q1_s", "forward_latency_s", "forward_latency_q3_s"]
DAGGER = "\N{DAGGER}"
TIME_UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))


class Part(NamedTuple):
    """One panel of curves: its title, its rows, and the column along its axis."""

    title: str
    rows: pd.DataFrame
    along: str


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw panels by model and dataset, from `forward`.

    Raises:
        ValueError: The table is empty.
    """
    rows_by_panel = style.by_panel(tables["forward"], labels)
    if not rows_by_panel:
        raise ValueError("latency: no forward pass: no cell of profile has the measurement forward")
    along = {key: _varying_column(rows) for key, rows in rows_by_panel.items()}
    if not any(along.values()):
        return _draw_dots(rows_by_panel, labels)
    parts = _all_parts(rows_by_panel, along, labels)
    is_large = len(parts) > style.MAX_PANELS
    if is_large:
        rows_by_panel = {key: style.at_highest_rank(rows) for key, rows in rows_by_panel.items()}
        parts = _all_parts(rows_by_panel, along, labels)
    titles = [(part.title,) for part in parts]
    width = 4.6 if len(parts) == 1 else 3.5
    figure, panels = style.panel_grid(titles, width, 2.6, columns=3 if is_large else 2)
    ends = [_panel(axes, part, labels) for axes, part in zip(panels, parts, strict=True)]
    un_merged = Line2D([], [], color=palettes.SAMPLE, ls="-", lw=1.2, label="un-merged")
    merged = Line2D([], [], color=palettes.SAMPLE, ls="--", lw=1.2, label="merged")
    notes = [style.HIGHEST_RANK] if is_large else []
    _legend(figure, tables["forward"], [un_merged, merged], notes)
    label_placement.name_ends(figure, panels, ends)
    return figure


# What figures of times share -------------------------------------------------------------------


def time_unit(seconds: float) -> tuple[float, str]:
    """The largest unit of time that is not longer than `seconds`: its seconds and its name."""
    return style.largest_unit(seconds, TIME_UNITS)


def is_tainted(rows: pd.DataFrame) -> pd.Series:
    """Whether something disturbed the measurement of each row."""
    if "taint" not in rows:
        return pd.Series(False, rows.index)
    return rows["taint"].fillna("") != ""


def add_legend(
    figure: Figure,
    rows: pd.DataFrame,
    handles: list[Artist],
    columns: int,
    notes: Sequence[str] = (),
) -> None:
    """A legend of `handles`, below the notes and a line for each reason why rows are tainted.

    Without handles, notes and reasons there is no legend.
    """
    lines = [*notes, *_taint_lines(rows)]
    if handles or lines:
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=columns,
            handletextpad=0.4,
            **style.legend_notes(lines),
        )


def _taint_lines(rows: pd.DataFrame) -> list[str]:
    if "taint" not in rows:
        return []
    reasons = rows.loc[is_tainted(rows), "taint"].str.split("; ").explode()
    return [f"{DAGGER} {reason}" for reason in dict.fromkeys(reasons)]


# Curves ----------------------------------------------------------------------------------------


def _varying_column(rows: pd.DataFrame) -> str | None:
    """The column to put on the axis, if any has several values: batch size, then length."""
    for column in (SIZE, LENGTH):
        if column in rows and rows[column].nunique() > 1:
            return column
    return None


def _is_merged(rows: pd.DataFrame) -> pd.Series:
    return rows["merged"].eq(True) if "merged" in rows else pd.Series(False, rows.index)


def _all_parts(
    rows_by_panel: dict[tuple[str, str], pd.DataFrame],
    along: dict[tuple[str, str], str | None],
    labels: dict[str, str],
) -> list[Part]:
    """The panels of all models and datasets, each along the column that varies in it."""
    parts: list[Part] = []
    for key, rows in rows_by_panel.items():
        parts += _parts(key, rows, along[key] or SIZE, labels)
    return parts


def _parts(
    key: tuple[str, str], rows: pd.DataFrame, along: str, labels: dict[str, str]
) -> list[Part]:
    """The panels of one model and dataset, as many as keep each readable.

    Only the largest value of the other column is shown: curves along batch sizes are at the
    longest length. A method's curves are in one panel.
    """
    other = _other(along)
    shown = rows[rows[other].isna() | (rows[other] == rows[other].max())]
    curve_counts = shown.groupby("method", sort=False)["rank"].nunique()
    page_of_method = _pages(curve_counts, labels)
    page_count = max(page_of_method.values()) + 1
    name = " / ".join(key)
    parts = []
    for page in range(page_count):
        title = f"{name}, {page + 1} of {page_count}" if page_count > 1 else name
        on_page = shown["method"].map(page_of_method) == page
        parts.append(Part(title, shown[on_page], along))
    return parts


def _other(along: str) -> str:
    return LENGTH if along == SIZE else SIZE


def _pages(curve_counts: pd.Series, labels: dict[str, str]) -> dict[str, int]:
    """The panel of each method.

    A new panel starts where the curves would be too many, or where a colour would come twice.
    """
    page, curves_on_page = 0, 0
    colours_on_page: dict[str, str] = {}  # colour -> the method that has it
    page_of_method = {}
    for method, count in curve_counts.items():
        colour = style.look(method, labels)[0]
        too_many = curves_on_page + count > MAX_CURVES
        comes_twice = colours_on_page.get(colour, style.base(method)) != style.base(method)
        if colours_on_page and (too_many or comes_twice):
            page, curves_on_page, colours_on_page = page + 1, 0, {}
        curves_on_page += count
        colours_on_page[colour] = style.base(method)
        page_of_method[method] = page
    return page_of_method


def _panel(axes: Axes, part: Part, labels: dict[str, str]) -> list[CurveEnd]:
    """Draw a panel; returns the ends of the un-merged curves."""
    rows, along = part.rows, part.along
    sound = rows[rows["status"] == "ok"]
    unit_seconds, unit = time_unit(sound["forward_latency_s"].median() if len(sound) else 1)
    ranks = sorted(set(sound["rank"]) - {0})
    ends = []
    for (method, rank), curves in sound.groupby(["method", "rank"], sort=False):
        width = _line_width(rank, ranks)
        for is_merged, curve in curves.sort_values(along).groupby(_is_merged(curves)):
            times = curve[QUARTILES] / unit_seconds
            _draw_curve(axes, curve[along], times, style.look(method, labels), width, is_merged)
            if not is_merged:
                name = style.curve_name(method, rank, labels)
                name += DAGGER if is_tainted(curve).any() else ""
                ink = style.ink(style.look(method, labels)[0])
                ends.append(CurveEnd(times["forward_latency_s"].iloc[-1], name, ink))
    _set_axes(axes, rows, along, unit)
    axes.set_xlabel("\n".join([axes.get_xlabel(), *_failure_lines(rows, labels)]))
    return ends


def _line_width(rank: int, ranks: list[int]) -> float:
    """Width of a line in points: the higher the rank, the thicker."""
    if rank and len(ranks) > 1:
        return 0.8 + 0.8 * (ranks.index(rank) / (len(ranks) - 1))
    return 0.8 + 0.8 * 0.5


def _draw_curve(
    axes: Axes,
    x: pd.Series,
    times: pd.DataFrame,
    look: tuple[str, str],
    width: float,
    is_merged: bool,
) -> None:
    low, middle, high = (times[name] for name in QUARTILES)
    colour, marker = look
    axes.errorbar(
        x,
        middle,
        [middle - low, high - middle],
        ls="--" if is_merged else "-",
        elinewidth=0.7,
        color=colour,
        marker=marker,
        ms=3,
        lw=width,
        mfc="white" if is_merged else colour,
    )


def _failure_lines(rows: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """One line for each method and rank that failed: why, and the first size at which it did."""
    first_size: dict[str, str] = {}
    for row in rows[rows["status"] != "ok"].itertuples():
        size = getattr(row, SIZE, float("nan"))
        where = "" if pd.isna(size) else f" at {size:.0f} x {getattr(row, LENGTH):.0f} tokens"
        name = style.curve_name(row.method, row.rank, labels)
        first_size.setdefault(f"{name}: {style.status_text(row.status)}", where)
    return [text + where for text, where in first_size.items()]


def _set_axes(axes: Axes, rows: pd.DataFrame, along: str, unit: str) -> None:
    axes.set(xscale="log", yscale="log", ylabel=f"latency ({unit})")
    values = sorted(rows[along].dropna().unique())
    axes.set_xticks(values, [f"{value:.0f}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    if high / low < 100:
        subs = (1, 2, 5)
    elif high / low < 1000:
        subs = (1, 3)
    else:
        subs = (1,)
    axes.yaxis.set_major_locator(LogLocator(10, subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    fixed = rows[_other(along)].max()
    if along == SIZE:
        axes.set_xlabel(f"batch size (of {fixed:.0f} tokens)")
    else:
        axes.set_xlabel(f"tokens (batch size {fixed:.0f})")


def _legend(
    figure: Figure, rows: pd.DataFrame, both: list[Line2D], notes: Sequence[str] = ()
) -> None:
    """A legend of un-merged and merged passes; with un-merged passes alone it is not needed."""
    add_legend(figure, rows, both if _is_merged(rows).any() else [], 2, notes)


# Dots ------------------------------------------------------------------------------------------


def _draw_dots(
    rows_by_panel: dict[tuple[str, str], pd.DataFrame], labels: dict[str, str]
) -> Figure:
    """One row for each method and rank, with a dot for the un-merged and for the merged pass."""
    rows_by_panel, notes = bars.fewer(rows_by_panel)
    curves = {key: rows.drop_duplicates(["method", "rank"]) for key, rows in rows_by_panel.items()}
    figure, panels = bars.panels(curves, foot=0.5)
    for axes, rows in zip(panels, rows_by_panel.values(), strict=True):
        _panel_of_dots(axes, rows, labels)
    look = {"color": palettes.SAMPLE, "marker": "o", "ms": 4.5, "ls": ""}
    un_merged = Line2D([], [], mfc=palettes.SAMPLE, label="un-merged", **look)
    merged = Line2D([], [], mfc="white", label="merged", **look)
    _legend(figure, pd.concat(rows_by_panel.values()), [un_merged, merged], notes)
    return figure


def _panel_of_dots(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    any_ok = (rows["status"] == "ok").any()
    unit_seconds, unit = time_unit(rows["forward_latency_s"].median() if any_ok else 1)
    names = []
    for place, ((method, rank), passes) in enumerate(rows.groupby(["method", "rank"], sort=False)):
        colour = style.look(method, labels)[0]
        for row, is_merged in zip(passes.itertuples(), _is_merged(passes), strict=True):
            _draw_dot(axes, place, row, unit_seconds, colour, is_merged)
        dagger = DAGGER if is_tainted(passes).any() else ""
        names.append(style.curve_name(method, rank, labels) + dagger)
    style.rows_axis(axes, names, pad=6)
    axes.set_xlim(left=0)
    size = ""
    if any_ok:
        size = f", batch {rows[SIZE].max():.0f} of {rows[LENGTH].max():.0f} tokens"
    axes.set_xlabel(f"latency ({unit}){size}")


def _draw_dot(
    axes: Axes, place: int, row: tuple, unit_seconds: float, colour: str, is_merged: bool
) -> None:
    """A median with its quartiles, or the status of a pass that failed."""
    if row.status != "ok":
        where = {"xycoords": axes.get_yaxis_transform(), "va": "center_baseline"}
        axes.annotate(style.status_text(row.status), (0.02, place), **where)
        return
    low, middle, high = (getattr(row, name) / unit_seconds for name in QUARTILES)
    axes.plot([low, high], [place, place], color=colour, lw=0.9)
    fill = "white" if is_merged else colour
    axes.plot(middle, place, "o", color=colour, mfc=fill, ms=4.5, zorder=3)
