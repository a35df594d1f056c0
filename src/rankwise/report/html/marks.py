"""Parts of the page's interactive charts: Vega-Lite specifications as dictionaries, and the rows that they draw.

A row with `run` leads to that run; the page adds the command that rebuilds it. A chart's `focus` is the method that its legend
has singled out, or ''. The page gives fonts and the colours of text and axes, and swaps the `DARK` ones.
"""

from typing import NamedTuple

import pandas as pd

from rankwise.report import style

CURVE = ["method", "rank"]
CELL = ["model", "dataset", *CURVE]
KEPT = [
    "weights_bytes",
    "quantization_bytes",
    "gradients_bytes",
    "optimizer_state_bytes",
]  # between steps
INK, QUIET = "#1D1F21", "#55595E"  # of marks that belong to no method
DARK = {
    "#000000": "#F2F2F2",
    "#0072B2": "#3A93D8",
    INK: "#E9EAEC",
    QUIET: "#A9AFB7",
}  # colour on white paper -> on dark
# Markers of matplotlib as paths in a square from -1 to 1, for Vega and for the legend.
SHAPES = {
    "o": "M0,-0.9A0.9,0.9,0,1,1,0,0.9A0.9,0.9,0,1,1,0,-0.9Z",
    "s": "M-0.8,-0.8H0.8V0.8H-0.8Z",
    "D": "M0,-1L0.9,0L0,1L-0.9,0Z",
    "^": "M0,-0.95L0.95,0.75H-0.95Z",
    "v": "M0,0.95L0.95,-0.75H-0.95Z",
    "P": "M-0.3,-0.95H0.3V-0.3H0.95V0.3H0.3V0.95H-0.3V0.3H-0.95V-0.3H-0.3Z",
    "X": "M-0.95,-0.5L-0.5,-0.95L0,-0.45L0.5,-0.95L0.95,-0.5L0.45,0L0.95,0.5L0.5,0.95L0,0.45L-0.5,0.95L-0.95,0.5L-0.45,0Z",
    "<": "M-0.95,0L0.75,-0.95V0.95Z",
    ">": "M0.95,0L-0.75,0.95V-0.95Z",
    "p": "M0,-0.95L0.9,-0.29L0.56,0.77H-0.56L-0.9,-0.29Z",
    "h": "M0,-0.95L0.82,-0.48V0.48L0,0.95L-0.82,0.48V-0.48Z",
    "*": "M0,-1L0.24,-0.32H0.95L0.38,0.12L0.59,0.81L0,0.4L-0.59,0.81L-0.38,0.12L-0.95,-0.32H-0.24Z",
}


class Panel(NamedTuple):
    """One drawing: its title, its Vega-Lite specification, and sentences on what it does not draw."""

    title: str
    spec: dict
    notes: list[str]


class Chart(NamedTuple):
    """A titled group of drawings, with the entries of their legend and the columns of the table that says the same."""

    key: str
    title: str
    caption: str
    panels: list[Panel]
    legend: list[dict]  # name, label, colour, shape
    columns: list[tuple[str, str]]  # field, heading
    table: str  # the dataset that the table shows


def legend(methods: list[str], labels: dict[str, str]) -> list[dict]:
    """Entries of a legend for methods, in the order of all methods."""
    looks = {name: style.look(name, labels) for name in labels if name in methods}
    return [
        {"name": n, "label": labels[n], "colour": colour, "shape": SHAPES[mark]}
        for n, (colour, mark) in looks.items()
    ]


def parts_legend(parts: dict[str, tuple[str, str]], columns: list[str]) -> list[dict]:
    """Entries of a legend for the parts of stacked bars."""
    shown = [parts[column] for column in columns]
    return [
        {"name": name, "label": name, "colour": colour, "shape": SHAPES["s"]}
        for name, colour in shown
    ]


def by(field: str, entries: list[dict], channel: str = "colour") -> dict:
    """An encoding of `field` by the colours (or shapes) of a legend."""
    scale = {"domain": [one["name"] for one in entries], "range": [one[channel] for one in entries]}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def faded(opacity: float, field: str = "method", faint: float = 0.07) -> dict:
    """An opacity that the legend's focus takes from all others."""
    return {
        "condition": {"test": f"focus === '' || datum.{field} === focus", "value": opacity},
        "value": faint,
    }


def quantity(field: str, title: str, zero: bool = False, **more: object) -> dict:
    """A quantitative axis."""
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"zero": zero, "nice": True, "padding": 10},
        **more,
    }


def tooltip(columns: list[tuple[str, str]]) -> list[dict]:
    """What hovering says."""
    return [{"field": field, "title": title, "type": "nominal"} for field, title in columns]


def chart(
    layers: list[dict], datasets: dict[str, list[dict]], description: str, height: int = 280
) -> dict:
    """A whole specification, as wide as the page lets it be."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [{"name": "focus", "value": ""}],
        "datasets": datasets,
        "layer": layers,
    }


def layer(data: str, mark: dict, **encoding: dict) -> dict:
    """One layer; its data are a dataset of the chart."""
    return {
        "data": {"name": data},
        "mark": mark,
        "encoding": {name: value for name, value in encoding.items() if value},
    }


def records(frame: pd.DataFrame) -> list[dict]:
    """Rows as dictionaries of plain values; what is missing is left out."""
    return [
        {k: _plain(v) for k, v in row.items() if not pd.isna(v)} for row in frame.to_dict("records")
    ]


def _plain(value: object) -> object:
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.7g}") if isinstance(value, float) else value


def named(frame: pd.DataFrame, labels: dict[str, str]) -> pd.Series:
    """Each row's curve, as in `LoRA r=8`."""
    return pd.Series(
        [style.curve_name(m, r, labels) for m, r in zip(frame["method"], frame["rank"], strict=True)],
        frame.index,
    )


def failures(runs: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """A sentence for each curve of which runs did not end well."""
    bad = runs[runs["status"] != "ok"]
    groups = bad.groupby([*CURVE, "status"], sort=False)
    return [
        f"{style.curve_name(m, r, labels)}: {why.replace('_', ' ')} ({len(rows)})"
        for (m, r, why), rows in groups
    ]
