"""The chart of losses by epoch, and the chart on a run's own view."""

import pandas as pd

from rankwise.core.keys import CURVE, CURVE_IN_GROUP
from rankwise.report.html import groups, vega
from rankwise.report.html.groups import Group, Key
from rankwise.report.html.vega import (
    CURVE_COLUMN,
    RUN_COLUMN,
    SEED_COLUMN,
    Chart,
    Column,
    Panel,
)

MAX_LINES = 200  # of the chart, all panels together: more are not told apart
MAX_POINTS = 8_000  # of MAX_LINES lines together
DASHES = [[1, 0], [6, 2], [3, 2], [1, 2], [6, 2, 1, 2], [1, 4]]  # from full to thin lines
LOSS: Column = ("value", "selection loss (nats)")


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """The loss on the selection slice by epoch; none without a history.

    There is one line for each run, or for each curve if there are more than `MAX_LINES` runs.
    """
    groups_by_panel = groups.by_panel(frames, labels)
    history = frames.get("history")
    if history is None or "selection_loss_nats" not in history or not groups_by_panel:
        return []
    legend = vega.method_legend(groups.methods_of(groups_by_panel), labels)
    run_count = sum(len(group.runs) for group in groups_by_panel.values())
    panels = []
    for key, group in groups_by_panel.items():
        rows = _rows(group, history)
        if run_count > MAX_LINES:
            rows = _means(rows)
        line_count = max(min(run_count, MAX_LINES), 1)
        rows = rows[is_kept(rows, MAX_POINTS // line_count)]
        panels.append(_panel(key, rows.assign(curve=vega.curve_names(rows, labels)), legend))
    lines = (
        "Each line is one run."
        if run_count <= MAX_LINES
        else f"Each line is the mean over the seeds of a curve, at the updates that all of its "
        f"runs have: the study has more than {MAX_LINES} runs. A click leads to its first run."
    )
    caption = (
        f"{lines} The slice is held out of train, and the state that is reported is selected on it "
        "alone. The reported split is evaluated once, after training."
    )
    columns = [CURVE_COLUMN, SEED_COLUMN, ("epoch", "epoch"), LOSS, RUN_COLUMN]
    title = "Loss by epoch"
    return [Chart("loss", title, caption, panels, legend, columns, "points", ("loss",))]


def _rows(group: Group, history: pd.DataFrame) -> pd.DataFrame:
    """The history of the group's runs, with the loss as `value`."""
    runs = group.runs[[*CURVE, "seed", "request_digest"]]
    runs = runs.rename(columns={"request_digest": "run"})
    losses = history[[*CURVE, "seed", "epoch", "update", "selection_loss_nats"]]
    rows = losses.merge(runs, on=[*CURVE, "seed"])
    return rows.rename(columns={"selection_loss_nats": "value"}).dropna(subset=["value"])


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean of each curve at each update that all of its runs have; `run` is its first run."""
    seeds = rows.groupby(CURVE)["seed"].nunique().rename("all_seeds")
    by_update = rows.groupby([*CURVE, "update"], sort=False)
    means = by_update.agg(
        epoch=("epoch", "first"), value=("value", "mean"), seeds=("seed", "nunique")
    ).reset_index()
    means = means.join(seeds, on=CURVE)
    first = rows.groupby(CURVE)["run"].first()
    shared = means[means["seeds"] == means["all_seeds"]].join(first, on=CURVE)
    return shared.assign(seed="mean of " + shared["seeds"].astype(str))


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
    description = f"Loss on the selection slice by epoch, {' on '.join(key)}."
    spec = vega.chart_spec([line, dot], {"points": vega.plain_rows(shown)}, description)
    return Panel(key, spec, [])


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
    """The chart of the losses of one run, or of two over each other.

    The page fills in the data, and gives each run (`name`) its method's colour and a line style.
    """
    loss = ("selection_loss_nats", "selection loss (nats)")
    x, y = epoch_axis(0), vega.quantity(*loss)
    columns = [
        ("name", "run"),
        ("epoch", "epoch"),
        ("update", "update"),
        loss,
        ("train_loss_nats", "train loss (nats)"),
        ("learning_rate", "learning rate"),
    ]
    scale: dict[str, list] = {"domain": [], "range": []}
    by_name = {"field": "name", "type": "nominal", "legend": None}
    colour, dash = {**by_name, "scale": dict(scale)}, {**by_name, "scale": dict(scale)}
    layers = [
        vega.layer(
            "points", {"type": "line", "strokeWidth": 1.8}, x=x, y=y, color=colour, strokeDash=dash
        ),
        vega.layer(
            "points",
            {"type": "point", "filled": True, "size": 45},
            x=x,
            y=y,
            color=colour,
            tooltip=vega.tooltip(columns),
        ),
    ]
    return vega.chart_spec(layers, {}, "Loss on the selection slice by epoch.", 240)
