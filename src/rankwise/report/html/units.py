"""Numbers of the page as people read them: a column's heading and unit, and the text of a value."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import tables
from rankwise.report import style
from rankwise.report.latency import TIME_UNITS

FLOP_UNITS = (
    (1e15, "PFLOP"),
    (1e12, "TFLOP"),
    (1e9, "GFLOP"),
    (1e6, "MFLOP"),
    (1.0, "FLOP"),
)
UNIT_NAMES = {  # ending of a column -> its unit, for units that are never scaled
    "_nats": "nats",
    "_gib": "GiB",
    "_joules": "J",
    "_tokens": "tokens",
    "_watts": "watts",
    "_mib": "MiB",
}


class Reading(NamedTuple):
    """How a column of numbers is shown: heading, unit, and the text of a value in that unit."""

    heading: str
    unit: str
    text: Callable[[float], str]


def reading(name: str, values: pd.Series) -> Reading:
    """How a column is shown: its heading, its unit, and a value's text in that unit.

    A scaled unit fits the largest value, so that columns side by side tend to have the same unit.
    """
    stem = name.rpartition("_")[0].replace("_", " ")
    largest = _largest(values)
    if name.endswith(("_per_s", "_per_second")):
        return Reading(name.partition("_per_")[0].replace("_", " "), "per s", _rate_text)
    if name.endswith("_bytes"):
        return _scaled(stem, *style.byte_unit(largest))
    if name.endswith("_flops"):
        return _scaled(stem, *style.largest_unit(largest, FLOP_UNITS))
    if name.endswith("_s"):
        return _scaled(stem, *style.largest_unit(largest, TIME_UNITS))
    if name.endswith(("_fraction", "_percent")):
        factor = 100 if name.endswith("_fraction") else 1
        return Reading(stem, "%", lambda value: _percent_text(factor * value))
    ending = next((ending for ending in UNIT_NAMES if name.endswith(ending)), "")
    heading = tables.headings().get(name) or (stem if ending else name.replace("_", " "))
    text = "{:g}".format if name == "learning_rate" else whole
    return Reading(heading.partition(" (")[0], UNIT_NAMES.get(ending, ""), text)


def _largest(values: pd.Series) -> float:
    if not pd.api.types.is_numeric_dtype(values):
        return 1.0
    sizes = values.dropna().astype(float).abs()
    return sizes.max() if (sizes > 0).any() else 1.0


def _scaled(heading: str, size: float, unit: str) -> Reading:
    return Reading(heading, unit, lambda value: digits(value / size))


def _rate_text(value: float) -> str:
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _percent_text(value: float) -> str:
    return f"{value:.2f}".replace("-", style.MINUS)


def digits(value: float) -> str:
    """A value with four significant digits, in powers of ten only if it is very small."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 1e-3:
        text = f"{value:#.4g}".rstrip(".")
    else:
        text = f"{value:.2g}"
    return text.replace("-", style.MINUS, 1) if value < 0 else text


def whole(value: float) -> str:
    """A whole number with separators of thousands, or four significant digits."""
    if value.is_integer():
        return f"{value:,.0f}".replace("-", style.MINUS)
    return digits(value)
