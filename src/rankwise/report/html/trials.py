"""The chart of a search: loss on the selection slice by learning rate, and what was chosen."""

import math

import pandas as pd

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import style
from rankwise.report.html import vega
from rankwise.report.html.groups import Key
from rankwise.report.html.vega import (
    CURVE_COLUMN,
    RUN_COLUMN,
    SEED_COLUMN,
    Chart,
    Column,
    Panel,
)

LOSS = "selection_loss_nats"
TRIAL: Column = ("trial", "trial")
RATE: Column = ("learning_rate", "learning rate")
VALUE: Column = ("value", "selection loss (nats)")


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """A panel for each model and dataset that was searched; none if no trial ended well."""
    search = frames.get("search")
    if search is None or LOSS not in search:
        return []
    rows_by_panel, methods = {}, []
    for key, rows in style.by_panel(search, labels).items():
        if rows[LOSS].notna().any():
            rows_by_panel[key] = rows
            methods += rows["method"].tolist()
    if not rows_by_panel:
        return []
    legend = vega.method_legend(methods, labels)
    panels = [_panel(key, rows, labels, legend) for key, rows in rows_by_panel.items()]
    caption = (
        "Each mark is one trial of a method at a rank with one seed, never evaluated on the "
        "reported split. A line joins the best mean over seeds at each rate. Rings mark the chosen "
        "settings, with which the runs were trained."
    )
    columns = [CURVE_COLUMN, TRIAL, RATE, SEED_COLUMN, VALUE, RUN_COLUMN]
    title = "Search for learning rates"
    return [Chart("search", title, caption, panels, legend, columns, "points", ("sensitivity",))]


def _panel(key: Key, rows: pd.DataFrame, labels: dict[str, str], legend: list[dict]) -> Panel:
    points = rows.rename(columns={LOSS: "value", "request_digest": "run"}).dropna(subset=["value"])
    trials = _means(rows)
    by_loss = trials.sort_values("value", kind="stable")
    best = by_loss.drop_duplicates([*CURVE_IN_GROUP, "learning_rate"]).sort_values("learning_rate")
    datasets = {
        "points": points[[*CURVE_IN_GROUP, "seed", "trial", "learning_rate", "value", "run"]],
        "lines": best.drop(columns=["selected", "trial"]),
        "chosen": trials[trials["selected"].astype(bool)].drop(columns="selected"),
    }
    data = {}
    for name, frame in datasets.items():
        named = frame.assign(curve=vega.curve_names(frame, labels))
        data[name] = vega.plain_rows(named)
    description = f"Loss on the selection slice by learning rate, {' on '.join(key)}."
    layers = _layers(legend, _ticks(rows["learning_rate"]))
    spec = vega.chart_spec(layers, data, description)
    return Panel(key, spec, vega.failure_notes(rows, labels))


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each trial whose seeds all ended well, with its mean loss as `value`."""
    trials = rows.groupby([*CURVE_IN_GROUP, "trial"], sort=False)
    all_ok = trials["status"].agg(lambda status: (status == "ok").all())
    settings = trials[["learning_rate", "selected"]].first()
    means = settings.assign(value=trials[LOSS].mean().where(all_ok))
    return means.dropna(subset=["value"]).reset_index()


def _ticks(rates: pd.Series) -> list[float]:
    """One and three times each power of ten in the range of the rates.

    If there are fewer than two of them, the ticks are at the lowest and the highest rate.
    """
    low, high = rates.min(), rates.max()
    ticks = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        ticks += [float(f"1e{power}"), float(f"3e{power}")]
    in_range = [tick for tick in ticks if low <= tick <= high]
    return in_range if len(in_range) > 1 else sorted({low, high})


def _layers(legend: list[dict], ticks: list[float]) -> list[dict]:
    """Lines of the best means, rings around the chosen settings, and a dot for each trial."""
    x = {
        **vega.quantity(*RATE),
        "scale": {"type": "log", "nice": False, "padding": 16},
        "axis": {"format": "~g", "values": ticks},
    }
    y, colour = vega.quantity(*VALUE), vega.encoded("method", legend)
    line = vega.layer(
        "lines",
        {"type": "line", "strokeWidth": 1.6},
        x=x,
        y=y,
        color=colour,
        detail={"field": "curve", "type": "nominal"},
        opacity=vega.focus_opacity(0.8),
    )
    ring = vega.layer(
        "chosen",
        {"type": "point", "filled": False, "size": 240, "strokeWidth": 1.8},
        x=x,
        y=y,
        color=colour,
        opacity=vega.focus_opacity(1),
        tooltip=vega.tooltip([CURVE_COLUMN, TRIAL, RATE, VALUE]),
    )
    columns = [CURVE_COLUMN, TRIAL, RATE, SEED_COLUMN, VALUE, RUN_COLUMN]
    dot = vega.layer(
        "points",
        {"type": "point", "filled": True, "size": 60, "cursor": "pointer"},
        x=x,
        y=y,
        color=colour,
        shape=vega.encoded("method", legend, "shape"),
        opacity=vega.focus_opacity(0.85),
        tooltip=vega.tooltip(columns),
    )
    return [line, ring, dot]
