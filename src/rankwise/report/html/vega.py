"""Parts of the page's interactive charts: Vega-Lite specifications as dictionaries, and their rows.

A row with `run` leads to that run when it is clicked. Rows with `method` and `rank` obey the page's
filters. A chart has a parameter `focus`: the entry of the legend that is singled out, or ''. The
page sets the fonts and the colours of text and axes. On a dark page it replaces the colours in
`DARK`.
"""

from typing import NamedTuple

import pandas as pd

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import palettes, style

# Bytes that training keeps between two steps.
KEPT = ["weights_bytes", "quantization_bytes", "gradients_bytes", "optimizer_state_bytes"]
INK, QUIET = "#1D1F21", "#55595E"  # colours of marks that belong to no method
DARK = {  # colour on a white page -> colour on a dark page
    "#000000": "#F2F2F2",
    "#5C5C5C": "#94989D",
    "#0072B2": "#3A93D8",
    "#332288": "#7566D0",
    "#882255": "#C25587",
    "#117733": "#3C9F5C",
    INK: "#E9EAEC",
    QUIET: "#A9AFB7",
}
# Markers of matplotlib as paths in a square from -1 to 1, for Vega and for the page's legends.
SHAPES = {
    "o": "M0,-0.9A0.9,0.9,0,1,1,0,0.9A0.9,0.9,0,1,1,0,-0.9Z",
    "s": "M-0.8,-0.8H0.8V0.8H-0.8Z",
    "D": "M0,-1L0.9,0L0,1L-0.9,0Z",
    "^": "M0,-0.95L0.95,0.75H-0.95Z",
    "v": "M0,0.95L0.95,-0.75H-0.95Z",
    "P": "M-0.3,-0.95H0.3V-0.3H0.95V0.3H0.3V0.95H-0.3V0.3H-0.95V-0.3H-0.3Z",
    "X": (
        "M-0.95,-0.5L-0.5,-0.95L0,-0.45L0.5,-0.95L0.95,-0.5L0.45,0"
        "L0.95,0.5L0.5,0.95L0,0.45L-0.5,0.95L-0.95,0.5L-0.45,0Z"
    ),
    "<": "M-0.95,0L0.75,-0.95V0.95Z",
    ">": "M0.95,0L-0.75,0.95V-0.95Z",
    "p": "M0,-0.95L0.9,-0.29L0.56,0.77H-0.56L-0.9,-0.29Z",
    "h": "M0,-0.95L0.82,-0.48V0.48L0,0.95L-0.82,0.48V-0.48Z",
    "*": (
        "M0,-1L0.24,-0.32H0.95L0.38,0.12L0.59,0.81L0,0.4L-0.59,0.81L-0.38,0.12L-0.95,-0.32H-0.24Z"
    ),
}
SHAPES |= {
    marker: style.svg_path(marker)
    for marker in (*palettes.MARKERS, *palettes.VARIANT_MARKERS)
    if marker not in SHAPES
}
# Columns of tooltips and data tables: field and heading.
Column = tuple[str, str]
CURVE_COLUMN: Column = ("curve", "curve")
SEED_COLUMN: Column = ("seed", "seed")
RUN_COLUMN: Column = ("run", "run")


class Note(NamedTuple):
    """A sentence about what a drawing does not show, and the curve that it is about, if any."""

    text: str
    method: str | None = None
    rank: int | None = None


class Panel(NamedTuple):
    """One drawing.

    Attributes:
        key: its model and dataset.
        spec: its Vega-Lite specification.
        notes: what it does not show.
        axes: with axes of one's choice, title and better direction of each field; see `front`.
        detail: what its title says after the model and dataset.
    """

    key: tuple[str, str]
    spec: dict
    notes: list[Note]
    axes: dict[str, dict] | None = None
    detail: str = ""

    @property
    def title(self) -> str:
        """The model and dataset in words, and the detail."""
        return " on ".join(self.key) + self.detail


class Chart(NamedTuple):
    """A titled group of drawings.

    Attributes:
        key: its name in links.
        title: its title.
        caption: a text below the title.
        panels: the drawings.
        legend: entries with name, label, colour and shape.
        columns: the columns of the table that shows the chart's data.
        table: the dataset that this table shows.
        figures: names of the static figures that show the same.
        choices: for a chart with axes of one's choice: axis (x, y) -> [field, name] of each choice.
    """

    key: str
    title: str
    caption: str
    panels: list[Panel]
    legend: list[dict]
    columns: list[Column]
    table: str
    figures: tuple[str, ...] = ()
    choices: dict[str, list[Column]] | None = None


# Legends ---------------------------------------------------------------------------------------


def method_legend(methods: list[str], labels: dict[str, str]) -> list[dict]:
    """Entries of a legend of methods, in the order of all methods."""
    entries = []
    for name, label in labels.items():
        if name in methods:
            colour, marker = style.look(name, labels)
            entry = {"name": name, "label": label, "colour": colour, "shape": SHAPES[marker]}
            entries.append(entry)
    return entries


def named_legend(looks: dict[str, tuple[str, str]]) -> list[dict]:
    """Entries of a legend of names with (colour, marker)."""
    return [
        {"name": name, "label": name, "colour": colour, "shape": SHAPES[marker]}
        for name, (colour, marker) in looks.items()
    ]


def encoded(field: str, legend: list[dict], channel: str = "colour") -> dict:
    """An encoding of `field` by the colours (or the shapes) of a legend."""
    scale = {
        "domain": [entry["name"] for entry in legend],
        "range": [entry[channel] for entry in legend],
    }
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def focus_opacity(opacity: float, field: str = "method", faint: float = 0.07) -> dict:
    """An opacity that falls to `faint` if the legend singles out another value of `field`."""
    is_in_focus = f"focus === '' || datum.{field} === focus"
    return {"condition": {"test": is_in_focus, "value": opacity}, "value": faint}


# Axes, layers, charts --------------------------------------------------------------------------


def quantity(field: str, title: str, zero: bool = False, **more: object) -> dict:
    """A quantitative axis; with `zero` it starts at zero."""
    scale = {"zero": zero, "nice": True, "padding": 10}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, **more}


def curve_axis(order: list[str]) -> dict:
    """A vertical axis with one row for each curve."""
    axis = {"labelLimit": 150, "ticks": False}
    return {"field": "curve", "type": "nominal", "title": None, "sort": order, "axis": axis}


def tooltip(columns: list[Column]) -> list[dict]:
    """The tooltip of a mark."""
    return [{"field": field, "title": title, "type": "nominal"} for field, title in columns]


def layer(data: str, mark: dict, **encoding: dict) -> dict:
    """One layer that draws a dataset of its chart; empty encodings are left out."""
    used = {channel: value for channel, value in encoding.items() if value}
    return {"data": {"name": data}, "mark": mark, "encoding": used}


def chart_spec(
    layers: list[dict],
    datasets: dict[str, list[dict]],
    description: str,
    height: int | dict[str, int] = 280,
) -> dict:
    """A whole specification, as wide as its place on the page.

    Args:
        layers: its layers.
        datasets: rows by name of the dataset.
        description: what a screen reader says.
        height: pixels, or `{"step": pixels}` for each row of an axis of names.
    """
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


# Rows ------------------------------------------------------------------------------------------


def plain_rows(frame: pd.DataFrame) -> list[dict]:
    """Rows as dictionaries of plain Python values; missing values are left out."""
    return [_plain_row(row) for row in frame.to_dict("records")]


def _plain_row(row: dict) -> dict:
    return {name: _plain(value) for name, value in row.items() if not pd.isna(value)}


def _plain(value: object) -> object:
    value = value.item() if hasattr(value, "item") else value
    # Seven digits are more than a drawing shows, and keep the page small.
    return float(f"{value:.7g}") if isinstance(value, float) else value


def curve_names(frame: pd.DataFrame, labels: dict[str, str]) -> pd.Series:
    """The name of each row's curve, such as `LoRA r=8`."""
    pairs = zip(frame["method"], frame["rank"], strict=True)
    names = [style.curve_name(method, rank, labels) for method, rank in pairs]
    return pd.Series(names, frame.index)


def failure_notes(runs: pd.DataFrame, labels: dict[str, str]) -> list[Note]:
    """A note for each curve and status of failed runs, with their number."""
    failed = runs[runs["status"] != "ok"]
    notes = []
    for (method, rank, status), rows in failed.groupby([*CURVE_IN_GROUP, "status"], sort=False):
        name = style.curve_name(method, rank, labels)
        notes.append(Note(f"{name}: {style.status_text(status)} ({len(rows)})", method, int(rank)))
    return notes
