"""Figure: the bytes of a training step at its peak, by kind, with the measured peak as a line."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankwise.report import bars, palettes, style

NAMES = {
    "weights_bytes": "weights",
    "quantization_bytes": "quantization constants",
    "buffers_bytes": "buffers",
    "inputs_bytes": "batch",
    "gradients_bytes": "gradients",
    "optimizer_state_bytes": "optimizer state",
    "projection_bytes": "projection bases",
    "activations_bytes": "activations",
    "temporary_bytes": "temporary",
    "cublas_workspace_bytes": "cuBLAS's workspace",
    "rounding_bytes": "allocator's rounding",
}
PARTS: bars.Parts = {column: (name, palettes.MEMORY[column]) for column, name in NAMES.items()}
MEASURED = {"color": "black", "linewidth": 1.4}


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for each model and dataset, from `ledger`.

    Raises:
        ValueError: The table is empty.
    """
    table = tables["ledger"]
    rows_by_panel = style.by_panel(table, labels)
    if not rows_by_panel:
        raise ValueError("ledger: no memory ledger: no cell of profile has the measurement ledger")
    rows_by_panel, notes = bars.fewer(rows_by_panel)
    figure, panels = bars.panels(rows_by_panel, foot=0.9)
    for axes, rows in zip(panels, rows_by_panel.values(), strict=True):
        _panel(axes, rows.reset_index(drop=True), labels)
    handles = []
    if "measured_peak_bytes" in table and table["measured_peak_bytes"].notna().any():
        handles.append(Line2D([], [], label="measured peak", **MEASURED))
    bars.legend(figure, PARTS, table, handles, notes)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    has_peak = "peak_bytes" in rows and rows["peak_bytes"].notna().any()
    highest = rows["peak_bytes"].max() if has_peak else 1
    unit_bytes, unit = style.byte_unit(highest)
    totals = bars.stack(axes, rows, PARTS, labels, divisor=unit_bytes)
    for place, row in rows[rows["status"] == "ok"].iterrows():
        measured = row.get("measured_peak_bytes")
        measured = float(measured) / unit_bytes if pd.notna(measured) else 0.0
        end = max(totals[place], measured)
        bars.text_beside(axes, place, end, style.number(totals[place]))
        if measured:
            y = [place - 0.42, place + 0.42]
            axes.plot([measured, measured], y, solid_capstyle="butt", **MEASURED)
    axes.set_xlim(0, highest / unit_bytes * 1.12)
    axes.set_xlabel(f"bytes at the peak ({unit})")
