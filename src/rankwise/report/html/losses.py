"""The chart of losses by epoch, and the chart on a run's own view."""

import pandas as pd

from rankwise.core.keys import CURVE, CURVE_IN_GROUP
from rankwise.report.html import groups, vega
from rankwise.report.html.groups import Group, Key
from rankwise.report.html.vega import (
    COMMAND_COLUMN,
    CURVE_COLUMN,
    RUN_COLUMN,
    SEED_COLUMN,
    Chart,
    Column,
    Panel,
)

MAX_POINTS = 8_000  # of the chart, all runs together
DASHES = [[1, 0], [6, 2], [3, 2], [1, 2], [6, 2, 1, 2], [1, 4]]  # from full to thin lines
LOSS: Column = ("value", "selection loss (nats)")
RUN_COLOUR = "#0072B2"  # of the line on a run's own view


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """The loss on the selection slice by epoch, one line for each run; none without a history."""
    groups_by_panel = groups.by_panel(frames, labels)
    history = frames.get("history")
    if history is None or "selection_loss_nats" not in history or not groups_by_panel:
        return []
    legend = vega.method_legend(groups.methods_of(groups_by_panel), labels)
    run_count = sum(len(group.runs) for group in groups_by_panel.values())
    points_per_run = MAX_POINTS // max(run_count, 1)
    panels = []
    for key, group in groups_by_panel.items():
        panels.append(_panel(key, _rows(group, history, labels, points_per_run), legend))
    caption = (
        "Each line is one run. The slice is held out of train, and the state that is reported is "
        "selected on it alone. The reported split is evaluated once, after training."
    )
    columns = [CURVE_COLUMN, SEED_COLUMN, ("epoch", "epoch"), LOSS, RUN_COLUMN]
    return [Chart("loss", "Loss by epoch", caption, panels, legend, columns, "points")]


def _rows(
    group: Group, history: pd.DataFrame, labels: dict[str, str], points_per_run: int
) -> pd.DataFrame:
    """The history of the group's runs, thinned, with the loss as `value`."""
    runs = group.runs[[*CURVE, "seed", "request_digest"]]
    runs = runs.rename(columns={"request_digest": "run"})
    losses = history[[*CURVE, "seed", "epoch", "update", "selection_loss_nats"]]
    rows = losses.merge(runs, on=[*CURVE, "seed"])
    rows = rows.rename(columns={"selection_loss_nats": "value"}).dropna(subset=["value"])
    rows = rows[is_kept(rows, points_per_run)]
    return rows.assign(curve=vega.curve_names(rows, labels))


def _panel(key: Key, rows: pd.DataFrame, legend: list[dict]) -> Panel:
    x, y = epoch_axis(rows["epoch"].max()), vega.quantity(*LOSS)
    colour = vega.encoded("method", legend)
    line = vega.layer(
        "points",
        {"type": "line", "strokeWidth": 1.5},
        x=x,
        y=y,
        detail={"field": "run", "type": "nominal"},
        color=colour,
        strokeDash=_rank_dashes(rows["rank"]),
        opacity=vega.focus_opacity(0.75),
    )
    columns = [
        CURVE_COLUMN,
        SEED_COLUMN,
        ("epoch", "epoch"),
        ("update", "update"),
        LOSS,
        RUN_COLUMN,
        COMMAND_COLUMN,
    ]
    dot = vega.layer(
        "points",
        {"type": "point", "filled": True, "size": 30, "cursor": "pointer"},
        x=x,
        y=y,
        color=colour,
        shape=vega.encoded("method", legend, "shape"),
        opacity=vega.focus_opacity(0.75),
        tooltip=vega.tooltip(columns),
    )
    shown = rows[[*CURVE_IN_GROUP, "curve", "seed", "epoch", "update", "value", "run"]]
    title = " on ".join(key)
    description = f"Loss on the selection slice by epoch, one line for each run, {title}."
    spec = vega.chart_spec([line, dot], {"points": vega.plain_rows(shown)}, description)
    return Panel(title, spec, [])


def _rank_dashes(ranks: pd.Series) -> dict:
    """An encoding of the rank by line style: the higher the rank, the fuller the line."""
    descending = sorted(set(ranks) - {0}, reverse=True)
    dashes = [DASHES[place % len(DASHES)] for place in range(len(descending))]
    scale = {"domain": [0, *descending], "range": [DASHES[0], *dashes]}
    return {"field": "rank", "type": "nominal", "scale": scale, "legend": None}


def epoch_axis(last: float) -> dict:
    """An axis of epochs; its ticks are at whole epochs, if there are any."""
    axis: dict = {"tickCount": 5, "format": "~r"}
    if last >= 1:
        axis["tickMinStep"] = 1
    scale = {"zero": True, "nice": False, "padding": 8}
    return {**vega.quantity("epoch", "epoch"), "scale": scale, "axis": axis}


def is_kept(rows: pd.DataFrame, most: int) -> pd.Series:
    """Which rows to keep, so that no run has many more than `most`.

    The kept rows are evenly spaced; the first and the last row of each run are among them.
    """
    by_run = rows.groupby("run")
    place, size = by_run.cumcount(), by_run["run"].transform("size")
    step = (size / max(most, 2)).clip(lower=1).apply(lambda value: -int(-value // 1))  # rounded up
    return (place % step == 0) | (place == size - 1)


def run_spec() -> dict:
    """The chart of one run's losses, without its data: the page fills it in."""
    loss = ("selection_loss_nats", "selection loss (nats)")
    x, y = epoch_axis(0), vega.quantity(*loss)
    columns = [
        ("epoch", "epoch"),
        ("update", "update"),
        loss,
        ("train_loss_nats", "train loss (nats)"),
        ("learning_rate", "learning rate"),
    ]
    line = {"type": "line", "strokeWidth": 1.8, "color": RUN_COLOUR}
    dot = {"type": "point", "filled": True, "size": 45, "color": RUN_COLOUR}
    layers = [
        vega.layer("points", line, x=x, y=y),
        vega.layer("points", dot, x=x, y=y, tooltip=vega.tooltip(columns)),
    ]
    return vega.chart_spec(layers, {}, "Loss on the selection slice by epoch, this run.", 240)
