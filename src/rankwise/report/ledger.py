"""Figure: what a training step holds at its peak, by kind, with the measured peak as a line."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankwise.report import bars, style

PARTS: bars.Parts = {
    "weights_bytes": ("weights", "#7F7F7F"),
    "quantization_bytes": ("quantization constants", "#B5B5B5"),
    "buffers_bytes": ("buffers", "#D0D0D0"),
    "inputs_bytes": ("batch", "#E3E3E3"),
    "gradients_bytes": ("gradients", "#E69F00"),
    "optimizer_state_bytes": ("optimizer state", "#0072B2"),
    "projection_bytes": ("projection bases", "#56B4E9"),
    "activations_bytes": ("activations", "#009E73"),
    "temporary_bytes": ("temporary", "#CC79A7"),
    "rounding_bytes": ("allocator's rounding", "#F2D5E4"),
}
MEASURED = {"color": "black", "linewidth": 1.4}


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel a model and dataset, from `tables["ledger"]`.

    Raises:
        ValueError: the table is empty.
    """
    table = tables["ledger"]
    found = {key: rows.reset_index(drop=True) for key, rows in style.groups(table, labels).items()}
    if not found:
        raise ValueError("ledger: no memory ledger: no cell of profile has the measurement ledger")
    figure, grid = bars.panels(found, foot=0.9)
    for axes, rows in zip(grid, found.values(), strict=True):
        _panel(axes, rows, labels)
    measured = "measured_peak_bytes" in table and table["measured_peak_bytes"].notna().any()
    others = [Line2D([], [], label="measured peak", **MEASURED)] if measured else []
    bars.legend(figure, PARTS, table, others)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    highest = (
        rows["peak_bytes"].max() if "peak_bytes" in rows and rows["peak_bytes"].notna().any() else 1
    )
    one, unit = style.unit(highest)
    totals = bars.stack(axes, rows, PARTS, labels, per=one)
    for place, row in rows[rows["status"] == "ok"].iterrows():
        bars.beside(
            axes, place, max(totals[place], _measured(row) / one), style.number(totals[place])
        )
        if _measured(row):
            axes.plot(
                [_measured(row) / one] * 2,
                [place - 0.42, place + 0.42],
                solid_capstyle="butt",
                **MEASURED,
            )
    axes.set_xlim(0, highest / one * 1.12)
    axes.set_xlabel(f"bytes at the peak ({unit})")


def _measured(row: pd.Series) -> float:
    value = row.get("measured_peak_bytes")
    return float(value) if pd.notna(value) else 0.0
