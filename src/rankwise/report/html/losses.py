"""The chart of losses by epoch, and the one on a run's own view."""

import pandas as pd

from rankwise.report.html import marks
from rankwise.report.html.marks import CELL, CURVE, Chart, Panel
from rankwise.report.html.quality import RUN, Group, groups

POINTS = 8_000  # of the chart, all runs together


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """The loss on the selection slice by epoch, a line a run; none without a history of it."""
    found, history = groups(frames, labels), frames.get("history")
    if history is None or "selection_loss_nats" not in history or not found:
        return []
    entries = marks.legend([m for group in found.values() for m in group.curves["method"]], labels)
    count = sum(len(group.runs) for group in found.values())
    panels = [
        _panel(key, group, history, labels, entries, POINTS // max(count, 1))
        for key, group in found.items()
    ]
    caption = (
        "A line is one run. The slice is held out of train, and selection of the reported state uses it alone; "
        "the reported split is evaluated once, after training."
    )
    columns = [*RUN[:2], ("epoch", "epoch"), ("value", "selection loss (nats)"), RUN[2]]
    return [Chart("loss", "Loss by epoch", caption, panels, entries, columns, "points")]


def _panel(
    key: tuple, group: Group, history: pd.DataFrame, labels: dict, entries: list[dict], most: int
) -> Panel:
    ids = group.runs[["model", "dataset", *CURVE, "seed", "request_digest"]].rename(
        columns={"request_digest": "run"}
    )
    rows = history[[*CELL, "seed", "epoch", "update", "selection_loss_nats"]].merge(
        ids, on=[*CELL, "seed"]
    )
    rows = rows.rename(columns={"selection_loss_nats": "value"}).dropna(subset=["value"])
    rows = rows[thinned(rows, most)].assign(curve=lambda found: marks.named(found, labels))
    x, y = epochs(rows["epoch"].max()), marks.quantity("value", "selection loss (nats)")
    columns = [
        *RUN[:2],
        ("epoch", "epoch"),
        ("update", "update"),
        ("value", "selection loss (nats)"),
        *RUN[2:],
    ]
    ranks = sorted(set(rows["rank"]), reverse=True)
    dashes = [[1, 0], [6, 2], [3, 2], [1, 2], [6, 2, 1, 2], [1, 4]]
    order = [0, *(rank for rank in ranks if rank)]
    dash = {
        "domain": order,
        "range": [[1, 0], *(dashes[i % len(dashes)] for i in range(len(order) - 1))],
    }
    colour, run = marks.by("method", entries), {"field": "run", "type": "nominal"}
    stroke = {"field": "rank", "type": "nominal", "scale": dash, "legend": None}
    line, dot = (
        {"type": "line", "strokeWidth": 1.5},
        {"type": "point", "filled": True, "size": 30, "cursor": "pointer"},
    )
    layers = [
        marks.layer("points", line, x=x, y=y, detail=run, color=colour, strokeDash=stroke, opacity=marks.faded(0.75)),
        marks.layer("points", dot, x=x, y=y, color=colour, shape=marks.by("method", entries, "shape"),
                    opacity=marks.faded(0.75), tooltip=marks.tooltip(columns)),
    ]  # fmt: skip
    data = {
        "points": marks.records(rows[[*CURVE, "curve", "seed", "epoch", "update", "value", "run"]])
    }
    text = f"Loss on the selection slice by epoch, a line a run, {' on '.join(key)}."
    return Panel(" on ".join(key), marks.chart(layers, data, text), [])


def epochs(last: float) -> dict:
    """The axis of epochs; whole ones only, if there are any."""
    axis = {"tickCount": 5, "format": "~r"} | ({"tickMinStep": 1} if last >= 1 else {})
    return {
        **marks.quantity("epoch", "epoch", zero=True),
        "scale": {"zero": True, "nice": False, "padding": 8},
        "axis": axis,
    }


def thinned(rows: pd.DataFrame, most: int, run: str = "run") -> pd.Series:
    """Which rows to keep so that no run has many more than `most`; each run's first and last among them."""
    place, size = rows.groupby(run).cumcount(), rows.groupby(run)[run].transform("size")
    step = (size / max(most, 2)).clip(lower=1).apply(lambda value: -int(-value // 1))
    return (place % step == 0) | (place == size - 1)


def curve() -> dict:
    """The chart of one run's losses, without its data."""
    x, y = epochs(0), marks.quantity("selection_loss_nats", "selection loss (nats)")
    columns = [
        ("epoch", "epoch"),
        ("update", "update"),
        ("selection_loss_nats", "selection loss (nats)"),
    ]
    columns += [("train_loss_nats", "train loss (nats)"), ("learning_rate", "learning rate")]
    line = {"type": "line", "strokeWidth": 1.8, "color": "#0072B2"}
    dot = {"type": "point", "filled": True, "size": 45, "color": "#0072B2"}
    layers = [
        marks.layer("points", line, x=x, y=y),
        marks.layer("points", dot, x=x, y=y, tooltip=marks.tooltip(columns)),
    ]
    return marks.chart(layers, {}, "Loss on the selection slice by epoch, this run.", 240)
