"""Figure: the largest micro-batch that fits into memory of a given size, by method and rank."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rankwise.report import bars, style


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for each model, dataset and sequence length, from `fits`.

    Dots on a logarithmic axis, one for each memory size; a cross where not even one sample fits.

    Raises:
        ValueError: The table is empty.
    """
    table = tables["fits"]
    if table.empty or "largest_batch_size" not in table:
        raise ValueError(
            "fits: no result: no cell of profile has the measurement fits, or none is supported"
        )
    sizes = sorted(table["memory_gib"].dropna().unique())
    colours = style.ordered_colours(sizes)
    rows_by_panel, notes = bars.fewer(_panels(table, labels))
    curves_by_panel = {key: _curves(rows) for key, rows in rows_by_panel.items()}
    figure, panels = bars.panels(curves_by_panel, foot=0.5)
    for axes, (key, rows) in zip(panels, rows_by_panel.items(), strict=True):
        _panel(axes, rows, curves_by_panel[key], colours, labels)
    handles = []
    for size, colour in colours.items():
        dot = Line2D([], [], color=colour, marker="o", ms=4.5, ls="", label=f"{size:g} GiB")
        handles.append(dot)
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(handles),
        handletextpad=0.1,
        columnspacing=1.2,
        **style.legend_notes(notes),
    )
    return figure


def _panels(table: pd.DataFrame, labels: dict[str, str]) -> dict[tuple, pd.DataFrame]:
    """The rows of each model, dataset and sequence length."""
    rows_by_panel = {}
    for key, group in style.by_panel(table, labels).items():
        for tokens, rows in group.groupby("sequence_length_tokens"):
            rows_by_panel[*key, f"{tokens:.0f} tokens"] = rows
    return rows_by_panel


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The first row of each method and rank."""
    return rows.drop_duplicates(["method", "rank"]).reset_index(drop=True)


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    curves: pd.DataFrame,
    colours: dict[float, str],
    labels: dict[str, str],
) -> None:
    bars.stack(axes, curves, {}, labels)  # names and statuses alone: there are no bars
    axes.set_xscale("log")
    curve_keys = list(zip(curves["method"], curves["rank"], strict=True))
    for row in rows[rows["status"] == "ok"].itertuples():
        y, colour = curve_keys.index((row.method, row.rank)), colours[row.memory_gib]
        if row.largest_batch_size:
            axes.plot(row.largest_batch_size, y, "o", color=colour, ms=4.5, clip_on=False)
        else:
            # Zero has no place on a logarithmic axis; the sizes' crosses stand side by side.
            x = 0.012 + 0.03 * list(colours).index(row.memory_gib)
            cross = {"color": colour, "ms": 4, "clip_on": False}
            axes.plot(x, y, "x", transform=axes.get_yaxis_transform(), **cross)
    largest = max(rows["largest_batch_size"].max(), 1)
    axes.set_xlim(0.5, largest * 1.6)
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1,) if largest > 300 else (1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("largest micro-batch (samples, log scale;\na cross: not even one)")
