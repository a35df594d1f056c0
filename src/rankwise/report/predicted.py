"""Figure: how far the measured peaks of memory are from the predicted ones."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankwise.core.words import counted
from rankwise.report import label_placement, palettes, style
from rankwise.report.label_placement import Mark

LIMIT = 2  # percent of the peak that a memory ledger may leave unexplained
ALL_NAMED = 6  # up to so many cells are all named
WORST_NAMED = 4  # of more cells, so many of the worst are named
VISIBLE = 0.05  # percent: a cell that is off by less is never named as one of the worst


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for all measured cells of `ledger`.

    It shows the residual (measured less predicted, in percent) against the measured peak.

    Raises:
        ValueError: No cell was measured.
    """
    table = tables["ledger"]
    if "measured_peak_bytes" not in table or not table["measured_peak_bytes"].notna().any():
        raise ValueError(
            "predicted: no memory ledger was measured; set `measured: true` in a grid of profile "
            "and run it on a machine that has its device"
        )
    rows = style.ordered(table[table["measured_peak_bytes"].notna()], labels)
    unit_bytes, unit = style.byte_unit(rows["measured_peak_bytes"].median())
    rows = rows.assign(
        x=rows["measured_peak_bytes"].astype(float) / unit_bytes,
        residual=100 * rows["residual_fraction"].astype(float),
    )
    figure = style.empty_figure(4.6, 3.0)
    axes = figure.subplots()
    axes.axhspan(-LIMIT, LIMIT, color=palettes.GUIDE, alpha=0.5, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.6)
    for method, cells in rows.groupby("method", sort=False):
        colour, marker = style.look(method, labels)
        fill = colour if marker == "o" else "none"
        look = {"marker": marker, "ls": "", "color": colour, "ms": 4, "mfc": fill}
        axes.plot(cells["x"], cells["residual"], **look)
    axes.set_xlabel(f"measured peak ({unit})")
    axes.set_ylabel("measured less predicted (%)")
    distance = rows["residual"].abs()
    reach = max(2.4, 1.2 * distance.max())
    axes.set_ylim(-reach, reach)
    axes.set_title(f"{counted(len(rows), 'cell')}, {(distance <= LIMIT).sum()} within {LIMIT} %")
    _name_cells(figure, axes, rows, labels)
    return figure


def _name_cells(figure: Figure, axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    """Name the cells, or of many cells the worst; labels avoid the marks and the line at zero."""
    if len(rows) <= ALL_NAMED:
        named = rows
    else:
        visible = rows[rows["residual"].abs() > VISIBLE]
        named = visible.sort_values("residual", key=abs, ascending=False).head(WORST_NAMED)
    figure.draw_without_rendering()
    to_pixels = axes.transData.transform
    marks = []
    for row in named.itertuples():
        name = style.curve_name(row.method, row.rank, labels)
        ink = style.ink(style.look(row.method, labels)[0])
        marks.append(Mark(*to_pixels((row.x, row.residual)), name, ink))
    avoid = [to_pixels((row.x, row.residual)) for row in rows.itertuples()]
    avoid += [to_pixels((x, 0)) for x in np.linspace(*axes.get_xlim(), 60)]
    label_placement.place_labels(axes, marks, avoid)
