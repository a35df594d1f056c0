"""Figure: live bytes by kind through two training steps and an evaluation, one panel a cell."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rankwise.report import style
from rankwise.report.ledger import PARTS

CELL = ["model", "dataset", "method", "rank"]
SHOWN = 12  # panels; the first ones, and a line says how many there are
LETTER = 0.019  # of the width: phases that are too narrow for their name have none
BUILDING = ("load", "prepare")
PHASES = {
    "first_forward": "forward", "first_backward": "backward", "first_update": "update", "forward": "forward",
    "backward": "backward", "update": "update", "evaluation": "eval.",
}  # fmt: skip


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Stacked areas, from `tables["timeline"]`; the first SHOWN cells.

    Raises:
        ValueError: the table is empty.
    """
    table = tables["timeline"]
    if table.empty:
        raise ValueError(
            "timeline: no memory ledger: no cell of profile has the measurement ledger"
        )
    cells = [
        cell
        for rows in style.groups(table, labels).values()
        for cell in rows.groupby(CELL, sort=False)
    ]
    figure, grid = style.panels(
        [key[:2] for key, _ in cells[:SHOWN]], width=3.5, height=1.9, columns=2
    )
    for axes, ((_, _, method, rank), rows) in zip(grid, cells, strict=False):
        axes.set_title(
            f"{axes.get_title(loc='left')} / {style.name(method, rank, labels)}", fontsize=8
        )
        _panel(axes, rows[~rows["phase"].isin(BUILDING)].reset_index(drop=True))
    handles = [
        Patch(color=colour, label=name)
        for column, (name, colour) in PARTS.items()
        if column in table and table[column].any()
    ]
    note = (
        f"The first {SHOWN} of {len(cells)} cells; all are in timeline.csv."
        if len(cells) > SHOWN
        else None
    )
    columns = 3 if len(cells) == 1 else 5
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=columns,
        handlelength=1.1,
        title=note,
        alignment="left",
    )
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    columns = [column for column in PARTS if column in rows]
    one, unit = style.unit(rows[columns].sum(axis=1).max())
    x = range(len(rows))
    axes.stackplot(
        x,
        *(rows[column] / one for column in columns),
        colors=[PARTS[column][1] for column in columns],
        linewidth=0,
    )
    starts = rows.index[rows["phase"].ne(rows["phase"].shift())]
    ends = [*starts[1:], len(rows)]
    for start in starts:
        axes.axvline(start, color="white", linewidth=0.6)
    spans = [
        (start, end, PHASES[rows["phase"][start]]) for start, end in zip(starts, ends, strict=True)
    ]
    wide = [
        (start, end, name)
        for start, end, name in spans
        if end - start >= LETTER * len(name) * len(rows)
    ]
    axes.set_xticks([(start + end) / 2 for start, end, _ in wide], [name for _, _, name in wide])
    axes.tick_params(axis="x", length=0, labelsize=7)
    axes.grid(axis="x", visible=False)
    axes.set_xlim(0, max(len(rows) - 1, 1))
    axes.set_ylabel(unit)
