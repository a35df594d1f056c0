"""Charts of memory: stacked bars of bytes by kind, one bar for each curve."""

import pandas as pd

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import style
from rankwise.report.html import vega
from rankwise.report.html.vega import CURVE_COLUMN, RUN_COLUMN, Chart, Panel
from rankwise.report.ledger import PARTS

ROW = 24  # pixels for each bar
# Table -> title, caption, and the columns that are stacked.
STACKS = {
    "ledger": (
        "Memory of a training step",
        "Bytes at the peak of a training step, predicted from shapes; the black mark is the "
        "measured peak, if there is one.",
        PARTS,
    ),
    "memory": (
        "Memory kept between steps",
        "Counted from shapes, to the byte. Activations are not included.",
        {name: PARTS[name] for name in vega.KEPT},
    ),
}
TOOLTIP = [CURVE_COLUMN, ("part", "part"), ("bytes", "bytes"), RUN_COLUMN]


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """A chart for each table of bytes that the study has."""
    tables = [name for name in STACKS if name in frames and len(frames[name])]
    return [_chart(name, frames[name], labels) for name in tables]


def _chart(name: str, table: pd.DataFrame, labels: dict[str, str]) -> Chart:
    title, caption, parts = STACKS[name]
    shown = {column: part for column, part in parts.items() if _has_bytes(table, column)}
    legend = vega.named_legend({text: (colour, "s") for text, colour in shown.values()})
    panels = []
    for key, rows in style.by_panel(table, labels).items():
        panels.append(_panel(key, rows, shown, legend, labels, title))
    columns = [CURVE_COLUMN, ("part", "part"), ("size", "size"), ("unit", "unit"), RUN_COLUMN]
    return Chart(name, title, caption, panels, legend, columns, "parts", (name,))


def _has_bytes(table: pd.DataFrame, column: str) -> bool:
    return column in table and table[column].fillna(0).astype(float).sum() > 0


def _panel(
    key: tuple[str, str],
    rows: pd.DataFrame,
    parts: dict[str, tuple[str, str]],
    legend: list[dict],
    labels: dict[str, str],
    title: str,
) -> Panel:
    ended = rows[rows["status"] == "ok"]
    ended = ended.assign(curve=vega.curve_names(ended, labels))
    totals = ended[list(parts)].astype(float).sum(axis=1)
    unit_bytes, unit = style.byte_unit(totals.max() if len(ended) else 1)
    order = list(dict.fromkeys(ended["curve"]))
    y = vega.curve_axis(order)
    x = vega.quantity("size", unit, zero=True, stack="zero")
    x["scale"] = {"zero": True, "nice": True}
    bar = vega.layer(
        "parts",
        {"type": "bar", "cursor": "pointer", "height": {"band": 0.72}},
        y=y,
        x=x,
        color=vega.encoded("part", legend),
        order={"field": "order", "type": "quantitative"},
        opacity=vega.focus_opacity(1, "part", 0.15),
        tooltip=vega.tooltip(TOOLTIP),
    )
    layers, data = [bar], {"parts": _part_rows(ended, parts, unit_bytes, unit)}
    if "measured_peak_bytes" in ended and ended["measured_peak_bytes"].notna().any():
        layers.append(_measured_layer(y))
        data["measured"] = _measured_rows(ended, unit_bytes)
    description = f"{title}, stacked by kind, {' on '.join(key)}."
    spec = vega.chart_spec(layers, data, description, {"step": ROW})
    return Panel(key, spec, vega.failure_notes(rows, labels))


def _part_rows(
    ended: pd.DataFrame, parts: dict[str, tuple[str, str]], unit_bytes: float, unit: str
) -> list[dict]:
    """One row for each part of each bar; parts of 0 bytes are left out."""
    identity = ["curve", *CURVE_IN_GROUP, "request_digest"]
    long = ended.melt(identity, list(parts), "column", "bytes").dropna(subset=["bytes"])
    long = long[long["bytes"] > 0].rename(columns={"request_digest": "run"})
    places = {column: place for place, column in enumerate(parts)}
    long = long.assign(
        part=[parts[column][0] for column in long["column"]],
        size=long["bytes"].astype(float) / unit_bytes,
        unit=unit,
        order=long["column"].map(places),
        bytes=_byte_texts(long["bytes"]),
    )
    return vega.plain_rows(long.drop(columns="column"))


def _measured_layer(y: dict) -> dict:
    """A tick at each measured peak."""
    return vega.layer(
        "measured",
        {"type": "tick", "thickness": 2, "color": vega.INK, "height": {"band": 0.95}},
        y=y,
        x={"field": "size", "type": "quantitative"},
        tooltip=vega.tooltip(TOOLTIP),
    )


def _measured_rows(ended: pd.DataFrame, unit_bytes: float) -> list[dict]:
    measured = ended.dropna(subset=["measured_peak_bytes"])
    measured = measured.rename(columns={"request_digest": "run"}).assign(
        size=measured["measured_peak_bytes"].astype(float) / unit_bytes,
        part="measured peak",
        bytes=_byte_texts(measured["measured_peak_bytes"]),
    )
    return vega.plain_rows(measured[[*CURVE_IN_GROUP, "curve", "part", "size", "bytes", "run"]])


def _byte_texts(sizes: pd.Series) -> list[str]:
    return [f"{int(size):,} B" for size in sizes]
