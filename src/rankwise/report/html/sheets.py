"""Tables of the page: for each the columns that a reader needs, in units that fit; all others follow when asked for."""

import html
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import tables
from rankwise.report import style

MOST = 1000  # rows; the files have them all
CELL = ("model", "dataset", "method", "rank", "seed")
TITLES = {
    "summary": "Results",
    "estimates": "Estimates",
    "comparisons": "Comparisons",
    "fronts": "Fronts of quality and cost",
    "views": "The best at equal cost",
    "search": "Search for learning rates",
    "runs": "Training runs",
    "memory": "Memory kept between steps",
    "ledger": "Memory of a step",
    "fits": "What fits",
    "throughput": "Training throughput",
    "flops": "FLOPs of a step",
    "forward": "Forward pass",
}
# Table -> the columns shown at once, behind those of the cell; all of them where it is not named.
SHOWN = {
    "summary": ("n", "accuracy_percent", "accuracy_low_percent", "accuracy_high_percent", "perplexity", "perplexity_low",
                "perplexity_high", "best", "trainable_parameters", "optimizer_state_mib", "peak_mib", "step_time_s", "warning"),
    "fronts": ("cost", "amount", "on_front", "front_probability", "estimate", "low", "high"),
    "views": ("cost", "budget", "amount", "estimate", "low", "high", "tied", "undecided"),
    "runs": ("accuracy_fraction", "perplexity", "eval_loss_nats", "learning_rate", "effective_batch_size", "updates",
             "tokens", "train_time_s"),
    "comparisons": ("method_a", "rank_a", "method_b", "rank_b", "verdict", "difference", "low", "high", "p_holm", "metric"),
    "memory": ("trainable_parameters", "weights_bytes", "gradients_bytes", "optimizer_state_bytes"),
    "ledger": ("peak_bytes", "measured_peak_bytes", "residual_fraction", "peak_phase", "weights_bytes", "gradients_bytes",
               "optimizer_state_bytes", "activations_bytes", "temporary_bytes"),
    "throughput": ("update_time_s", "forward_time_s", "backward_time_s", "optimizer_time_s", "throughput_samples_per_s",
                   "throughput_tokens_per_s", "energy_joules"),
    "flops": ("step_flops", "forward_flops", "backward_flops", "optimizer_amortised_flops", "epoch_flops"),
    "forward": ("batch_size", "sequence_length_tokens", "merged", "forward_latency_s", "throughput_samples_per_s",
                "throughput_tokens_per_s", "forward_flops"),
    "fits": ("memory_gib", "sequence_length_tokens", "largest_batch_size", "largest_length_tokens", "peak_bytes"),
    "search": ("trial", "learning_rate", "selection_loss_nats", "selected", "updates"),
}  # fmt: skip
FACETS = (
    "verdict",
    "metric",
    "model",
    "dataset",
)  # a table is filtered by the first of these that has several values
TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
FLOPS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP"))
RUN = "request_digest"
SCORES = ("estimate", "low", "high", "difference", "margin")  # columns in the unit of the metric
SPOKEN = ("cost", "task")  # columns whose values are names of quantities


class Column(NamedTuple):
    """A heading, its unit, whether its cells are numbers and shown at once, and the name in the files."""

    name: str
    heading: str
    unit: str
    number: bool
    shown: bool


class Sheet(NamedTuple):
    """A table as the page writes it: cells are (HTML, what sorts them, a longer form)."""

    key: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[list[tuple[str, str, str]]]
    facet: (
        tuple[int, list[tuple[str, int]]] | None
    )  # column, and its values with how many rows have each
    link: str
    left: int  # rows that only the files have


def sheet(key: str, frame: pd.DataFrame, labels: dict[str, str], link: str) -> Sheet:
    """One table. A method is called by its label, a run is a link to it, what all rows share is in the caption."""
    title = TITLES.get(key, key.replace("_", " ").capitalize())
    frame = frame.dropna(axis="columns", how="all")
    shared = [
        name for name in ("model", "dataset", "split", "device", "metric") if _constant(frame, name)
    ]
    caption = ", ".join(str(frame[name].iloc[0]) for name in shared)
    whole, frame = len(frame), frame.drop(columns=shared).head(MOST)
    if "status" in frame and (frame["status"] == "ok").all():
        frame = frame.drop(columns="status")
    order = [
        name for name in dict.fromkeys([*CELL, RUN, *SHOWN.get(key, ()), *frame]) if name in frame
    ]
    shown = {*CELL, "status", "reason", RUN, *SHOWN.get(key, order)}
    percent = SCORES if "metric" in shared and caption.endswith("accuracy_fraction") else ()
    parts = [_column(name, frame[name], name in shown, labels, name in percent) for name in order]
    rows = [list(row) for row in zip(*(cells for _, cells in parts), strict=True)]
    columns = [column for column, _ in parts]
    return Sheet(
        key, title, caption, columns, rows, _facet(columns, frame), link, whole - len(frame)
    )


def _constant(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and len(frame) > 0 and frame[name].nunique(dropna=False) == 1


def _facet(columns: list[Column], frame: pd.DataFrame) -> tuple[int, list[tuple[str, int]]] | None:
    for name in FACETS:
        if name in frame and 1 < frame[name].nunique() <= 8:
            place = next(i for i, column in enumerate(columns) if column.name == name)
            return place, [
                (str(value), int(count))
                for value, count in frame[name].value_counts(sort=False).items()
            ]
    return None


def _column(
    name: str, values: pd.Series, shown: bool, labels: dict[str, str], percent: bool
) -> tuple[Column, list[tuple[str, str, str]]]:
    heading, unit, text = reading(f"{name}_fraction" if percent else name, values)
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if name == RUN:
        return Column(name, "run", "", False, shown), [_link(value) for value in values]
    if name.startswith("method") and not number:
        values = values.map(lambda value: labels.get(value, value))
    cells = [_cell(name, value, text if number else None) for value in values]
    return Column(name, heading, unit, number, shown), cells


def _cell(name: str, value: object, text: Callable[[float], str] | None) -> tuple[str, str, str]:
    if pd.isna(value) or (name.startswith("rank") and value == 0):
        return "", "-1", ""
    if text is None:
        words = ("no", "yes")[bool(value)] if isinstance(value, bool) else str(value)
        return html.escape(words.replace("_", " ") if name in SPOKEN else words), "", ""
    return text(float(value)), f"{float(value):.10g}", f"{float(value):,.10g}"


def _link(run: str) -> tuple[str, str, str]:
    return (f'<a href="#run/{run}">{run[:8]}</a>' if isinstance(run, str) else ""), "", ""


def reading(name: str, values: pd.Series) -> tuple[str, str, Callable[[float], str]]:
    """How a column is read: its heading, its unit, and a value's text in that unit."""
    numbers = (
        values.dropna().astype(float).abs()
        if pd.api.types.is_numeric_dtype(values)
        else pd.Series(dtype=float)
    )
    stem = name.rpartition("_")[0].replace("_", " ")
    largest = (
        numbers.max() if (numbers > 0).any() else 1.0
    )  # so that columns of one kind, side by side, have one unit
    if name.endswith("_per_s") or name.endswith("_per_second"):
        return (
            name.partition("_per_")[0].replace("_", " "),
            "per s",
            lambda v: f"{v:,.4g}" if v < 1000 else f"{v:,.0f}",
        )
    if name.endswith("_bytes"):
        return stem, *_scaled(style.byte_unit(largest))
    if name.endswith("_flops"):
        return stem, *_scaled(next(both for both in FLOPS if largest >= both[0] or both[0] == 1.0))
    if name.endswith("_s"):
        return stem, *_scaled(next((both for both in TIMES if largest >= both[0]), TIMES[-1]))
    if name.endswith(("_fraction", "_percent")):
        factor = 100 if name.endswith("_fraction") else 1
        return stem, "%", lambda value: f"{value * factor:.2f}".replace("-", style.MINUS)
    units = ("_nats", "_gib", "_joules", "_tokens", "_watts", "_mib")
    unit = next((one[1:] for one in units if name.endswith(one)), "")
    heading = tables.HEADINGS.get(name, "") or (stem if unit else name.replace("_", " "))
    text = "{:g}".format if name == "learning_rate" else whole
    return (
        heading.partition(" (")[0],
        {"gib": "GiB", "mib": "MiB", "joules": "J"}.get(unit, unit),
        text,
    )


def _scaled(scale: tuple[float, str]) -> tuple[str, Callable[[float], str]]:
    return scale[1], lambda value: digits(value / scale[0])


def digits(value: float) -> str:
    """Four significant digits, never in powers of ten until they are very small."""
    if value == 0:
        return "0"
    size = abs(value)
    text = (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:#.4g}".rstrip(".")
        if size >= 1e-3
        else f"{value:.2g}"
    )
    return text.replace("-", style.MINUS, 1) if value < 0 else text


def whole(value: float) -> str:
    """A count with its thousands, or four significant digits."""
    if value.is_integer():
        return f"{value:,.0f}".replace("-", style.MINUS)
    return digits(value)
