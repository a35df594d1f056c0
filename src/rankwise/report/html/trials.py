"""The chart of a search: loss on the selection slice by learning rate, and what was chosen."""

import math

import pandas as pd

from rankwise.report import style
from rankwise.report.html import marks
from rankwise.report.html.marks import CURVE, Chart, Panel
from rankwise.report.html.quality import RUN

LOSS = "selection_loss_nats"
COLUMNS = [
    *RUN[:1],
    ("trial", "trial"),
    ("learning_rate", "learning rate"),
    ("value", "selection loss (nats)"),
]


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """A panel a model and dataset that was searched; none without a trial that ended well."""
    search = frames.get("search")
    if search is None or LOSS not in search:
        return []
    found = {
        key: rows for key, rows in style.by_panel(search, labels).items() if rows[LOSS].notna().any()
    }
    entries = marks.legend([method for rows in found.values() for method in rows["method"]], labels)
    panels = [_panel(key, rows, labels, entries) for key, rows in found.items()]
    caption = (
        "A mark is one trial of a method at a rank and one seed, never evaluated on the reported split; a line joins the best "
        "mean over seeds at each rate. Rings mark the settings that were chosen, which the runs took."
    )
    columns = [*COLUMNS[:3], ("seed", "seed"), COLUMNS[3], *RUN[2:3]]
    return (
        [Chart("search", "Search for learning rates", caption, panels, entries, columns, "points")]
        if panels
        else []
    )


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a trial of which every seed ended well: its mean loss over them as `value`."""
    trials = rows.groupby([*CURVE, "trial"], sort=False)
    value = trials[LOSS].mean().where(trials["status"].agg(lambda status: (status == "ok").all()))
    return (
        trials[["learning_rate", "selected"]]
        .first()
        .assign(value=value)
        .dropna(subset=["value"])
        .reset_index()
    )


def _panel(
    key: tuple[str, str], rows: pd.DataFrame, labels: dict[str, str], entries: list[dict]
) -> Panel:
    points = rows.rename(columns={LOSS: "value", "request_digest": "run"}).dropna(subset=["value"])
    trials = means(rows)
    best = trials.sort_values("value", kind="stable").drop_duplicates([*CURVE, "learning_rate"])
    shown = {
        "points": points[[*CURVE, "seed", "trial", "learning_rate", "value", "run"]],
        "lines": best.sort_values("learning_rate").drop(columns=["selected", "trial"]),
        "chosen": trials[trials["selected"].astype(bool)].drop(columns="selected"),
    }
    data = {
        name: marks.records(some.assign(curve=marks.named(some, labels)))
        for name, some in shown.items()
    }
    text = f"Loss on the selection slice by learning rate, {' on '.join(key)}."
    return Panel(
        " on ".join(key),
        marks.chart(_layers(entries, ticks(rows["learning_rate"])), data, text),
        marks.failures(rows, labels),
    )


def ticks(rates: pd.Series) -> list[float]:
    """One and three of each power of ten between the lowest and highest rate; those two, if there are fewer."""
    decades = range(math.floor(math.log10(rates.min())), math.ceil(math.log10(rates.max())) + 1)
    round_ones = [float(f"{digit}e{power}") for power in decades for digit in (1, 3)]
    found = [one for one in round_ones if rates.min() <= one <= rates.max()]
    return found if len(found) > 1 else sorted({rates.min(), rates.max()})


def _layers(entries: list[dict], values: list[float]) -> list[dict]:
    scale = {"type": "log", "nice": False, "padding": 16}
    x = {
        **marks.quantity("learning_rate", "learning rate"),
        "scale": scale,
        "axis": {"format": "~g", "values": values},
    }
    y, colour = marks.quantity("value", COLUMNS[3][1]), marks.by("method", entries)
    curve = {"field": "curve", "type": "nominal"}
    line, ring = (
        {"type": "line", "strokeWidth": 1.6},
        {"type": "point", "filled": False, "size": 240, "strokeWidth": 1.8},
    )
    dot = {"type": "point", "filled": True, "size": 60, "cursor": "pointer"}
    seen = [*COLUMNS[:3], ("seed", "seed"), COLUMNS[3], *RUN[2:]]
    shape = marks.by("method", entries, "shape")
    return [
        marks.layer("lines", line, x=x, y=y, color=colour, detail=curve, opacity=marks.faded(0.8)),
        marks.layer(
            "chosen",
            ring,
            x=x,
            y=y,
            color=colour,
            opacity=marks.faded(1),
            tooltip=marks.tooltip(COLUMNS),
        ),
        marks.layer(
            "points",
            dot,
            x=x,
            y=y,
            color=colour,
            shape=shape,
            opacity=marks.faded(0.85),
            tooltip=marks.tooltip(seen),
        ),
    ]
