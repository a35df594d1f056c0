"""Figure: live bytes by kind through two training steps and an evaluation, a panel per cell."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rankwise.core.keys import CURVE
from rankwise.report import style
from rankwise.report.ledger import PARTS

MAX_PANELS = 12  # of more cells, the first ones are shown, and a line says how many there are
LETTER_WIDTH = (
    0.019  # of a letter, as a share of the panel; a phase too narrow for its name has none
)
BUILDING = ("load", "prepare")  # phases before the first step, which are not shown
PHASES = {
    "first_forward": "forward",
    "first_backward": "backward",
    "first_update": "update",
    "forward": "forward",
    "backward": "backward",
    "update": "update",
    "evaluation": "eval.",
}


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw stacked areas of the first cells of `timeline`.

    Raises:
        ValueError: The table is empty.
    """
    table = tables["timeline"]
    if table.empty:
        raise ValueError(
            "timeline: no memory ledger: no cell of profile has the measurement ledger"
        )
    cells: list[tuple[tuple, pd.DataFrame]] = []
    for rows in style.by_panel(table, labels).values():
        cells += rows.groupby(CURVE, sort=False)
    shown = cells[:MAX_PANELS]
    titles = [(model, dataset) for (model, dataset, _, _), _ in shown]
    figure, panels = style.panel_grid(titles, width=3.5, height=1.9, columns=2)
    for axes, ((_, _, method, rank), rows) in zip(panels, shown, strict=True):
        name = style.curve_name(method, rank, labels)
        axes.set_title(f"{axes.get_title(loc='left')} / {name}", fontsize=8)
        _panel(axes, rows[~rows["phase"].isin(BUILDING)].reset_index(drop=True))
    _legend(figure, table, len(cells))
    return figure


def _legend(figure: Figure, table: pd.DataFrame, cell_count: int) -> None:
    handles = []
    for column, (name, colour) in PARTS.items():
        if column in table and table[column].any():
            handles.append(Patch(color=colour, label=name))
    note = None
    if cell_count > MAX_PANELS:
        note = f"The first {MAX_PANELS} of {cell_count} cells; all are in timeline.csv."
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=3 if cell_count == 1 else 5,
        handlelength=1.1,
        title=note,
        alignment="left",
    )


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    columns = [column for column in PARTS if column in rows]
    unit_bytes, unit = style.byte_unit(rows[columns].sum(axis=1).max())
    layers = [rows[column] / unit_bytes for column in columns]
    colours = [PARTS[column][1] for column in columns]
    axes.stackplot(range(len(rows)), *layers, colors=colours, linewidth=0)
    _mark_phases(axes, rows["phase"])
    axes.set_xlim(0, max(len(rows) - 1, 1))
    axes.set_ylabel(unit)


def _mark_phases(axes: Axes, phases: pd.Series) -> None:
    """Draw a line where a phase starts, and write its name below it if there is room."""
    starts = phases.index[phases.ne(phases.shift())]
    ends = [*starts[1:], len(phases)]
    places, names = [], []
    for start, end in zip(starts, ends, strict=True):
        axes.axvline(start, color="white", linewidth=0.6)
        name = PHASES[phases[start]]
        if end - start >= LETTER_WIDTH * len(name) * len(phases):
            places.append((start + end) / 2)
            names.append(name)
    axes.set_xticks(places, names)
    axes.tick_params(axis="x", length=0, labelsize=7)
    axes.grid(axis="x", visible=False)
