"""Figure: measured peaks of memory against the predicted ones, and by how much they differ."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankwise.report import placing, style

LIMIT = 2  # percent: what a ledger may leave unexplained
FEW, NAMED = 6, 4  # cells that are all named; of more, those furthest off


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel for all cells of `tables["ledger"]` that were measured: the residual in percent against the measured peak.

    Raises:
        ValueError: no cell was measured.
    """
    table = tables["ledger"]
    if "measured_peak_bytes" not in table or not table["measured_peak_bytes"].notna().any():
        raise ValueError(
            "predicted: no ledger was measured; set `measured: true` in a profile grid whose device is there"
        )
    rows = style.ordered(table[table["measured_peak_bytes"].notna()], labels)
    figure = style.canvas(4.6, 3.0)
    axes = figure.subplots()
    one, unit = style.unit(rows["measured_peak_bytes"].median())
    share = 100 * rows["residual_fraction"].astype(float)
    axes.axhspan(-LIMIT, LIMIT, color=style.GUIDE, alpha=0.5, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.6)
    for (method, *_), some in rows.groupby(["method"], sort=False):
        colour, marker = style.look(method, labels)
        x = some["measured_peak_bytes"].astype(float) / one
        axes.plot(
            x,
            share[some.index],
            marker,
            color=colour,
            ms=4,
            ls="",
            mfc="none" if marker != "o" else colour,
        )
    axes.set_xlabel(f"measured peak ({unit})")
    axes.set_ylabel("measured less predicted (%)")
    reach = max(2.4, 1.2 * share.abs().max())
    axes.set_ylim(-reach, reach)
    axes.set_title(f"{len(rows)} cells, {(share.abs() <= LIMIT).sum()} within {LIMIT} %")
    _name(
        figure,
        axes,
        rows.assign(share=share, x=rows["measured_peak_bytes"].astype(float) / one),
        labels,
    )
    return figure


def _name(figure: Figure, axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    """Name the cells, or of many those that are furthest off, if they are off at all, beside marks and the line at zero."""
    worst = (
        rows[rows["share"].abs() > 0.05].sort_values("share", key=abs, ascending=False).head(NAMED)
    )
    named = rows if len(rows) <= FEW else worst
    figure.draw_without_rendering()
    pixels = [
        (
            *axes.transData.transform((row.x, row.share)),
            style.name(row.method, row.rank, labels),
            style.ink(style.look(row.method, labels)[0]),
        )
        for row in named.itertuples()
    ]
    marks = [axes.transData.transform((row.x, row.share)) for row in rows.itertuples()]
    line = [axes.transData.transform((x, 0)) for x in np.linspace(*axes.get_xlim(), 60)]
    placing.place(axes, pixels, [*marks, *line])
