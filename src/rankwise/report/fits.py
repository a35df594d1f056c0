"""Figure: the largest micro-batch that memory of a size holds, by method; one panel a model, dataset and length."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rankwise.report import bars, style


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Dots on a logarithmic axis, one a memory size; a cross where not even one sample fits.

    Raises:
        ValueError: the table is empty.
    """
    table = tables["fits"]
    if table.empty or "largest_batch_size" not in table:
        raise ValueError(
            "fits: no result: no cell of profile has the measurement fits, or none is supported"
        )
    sizes = sorted(table["memory_gib"].dropna().unique())
    colours = dict(zip(sizes, [*style.COLOURS[2:], *style.COLOURS[:2]], strict=False))
    found = {
        (*key, f"{tokens:.0f} tokens"): rows.reset_index(drop=True)
        for key, group in style.groups(table, labels).items()
        for tokens, rows in group.groupby("sequence_length_tokens")
    }
    compact = {
        key: rows.drop_duplicates(["method", "rank"]).reset_index(drop=True)
        for key, rows in found.items()
    }
    figure, grid = bars.panels(compact, foot=0.3)
    for axes, key in zip(grid, found, strict=True):
        _panel(axes, found[key], compact[key], colours, labels)
    dots = [
        Line2D([], [], color=colour, marker="o", ms=4.5, ls="", label=f"{size:g} GiB")
        for size, colour in colours.items()
    ]
    figure.legend(
        handles=dots,
        loc="outside lower left",
        ncols=len(dots),
        handletextpad=0.1,
        columnspacing=1.2,
    )
    return figure


def _panel(
    axes: Axes, rows: pd.DataFrame, compact: pd.DataFrame, colours: dict, labels: dict[str, str]
) -> None:
    bars.stack(axes, compact, {}, labels)
    axes.set_xscale("log")
    place = {key: i for i, key in enumerate(zip(compact["method"], compact["rank"], strict=True))}
    largest = max(rows["largest_batch_size"].max(), 1)
    for row in rows[rows["status"] == "ok"].itertuples():
        y, colour = place[row.method, row.rank], colours[row.memory_gib]
        if row.largest_batch_size:
            axes.plot(row.largest_batch_size, y, "o", color=colour, ms=4.5, clip_on=False)
        else:
            x = 0.012 + 0.03 * list(colours).index(row.memory_gib)
            axes.plot(
                x, y, "x", color=colour, ms=4, transform=axes.get_yaxis_transform(), clip_on=False
            )
    axes.set_xlim(0.5, largest * 1.6)
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1,) if largest > 300 else (1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("largest micro-batch (samples, log scale; a cross: not even one)")
