"""Tables of the page: the columns that a reader needs, in units that fit.

All other columns are shown on request. The page itself holds the first rows of a table, for readers
without scripts; all rows are in its data, from which the scripts make the table when it is seen.
"""

import html
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from rankwise.core.keys import CELL
from rankwise.core.metrics import METRICS
from rankwise.report.html.units import reading

MAX_ROWS = 5000  # of a table in the page's data; the files have all rows
FIRST_ROWS = 25  # of a table in the page itself
# Key of the page's filters -> the columns of a table that it looks at. A row of a comparison is
# shown if both of its curves pass.
FILTERED = {
    "model": ("model",),
    "dataset": ("dataset",),
    "method": ("method", "method_a", "method_b"),
    "rank": ("rank", "rank_a", "rank_b"),
}
RUN = "request_digest"
TITLES = {
    "summary": "Results",
    "estimates": "Estimates",
    "comparisons": "Comparisons",
    "evaluations_summary": "Evaluations",
    "evaluations_comparisons": "Comparisons on the evaluations",
    "fronts": "Fronts of quality and cost",
    "views": "The best at equal cost",
    "search": "Search for learning rates",
    "runs": "Training runs",
    "memory": "Memory kept between steps",
    "ledger": "Memory of a training step",
    "fits": "What fits",
    "throughput": "Training throughput",
    "flops": "FLOPs of a training step",
    "forward": "Forward pass",
}
METRIC_COLUMNS = "metrics"  # in SHOWN: stands for the columns of all metrics
# Of a table of comparisons.
COMPARISON = (
    "method_a",
    "rank_a",
    "method_b",
    "rank_b",
    "verdict",
    "difference",
    "low",
    "high",
    "p_adjusted",
    "metric",
)
# Table -> the columns that are shown at first, after those of the cell. A table that is not named
# here shows all of its columns.
SHOWN = {
    "summary": (
        "n",
        METRIC_COLUMNS,
        "best",
        "flags",
        "trainable_parameters",
        "adapter_mib",
        "optimizer_state_mib",
        "peak_mib",
        "step_time_s",
        "warning",
    ),
    "fronts": ("cost", "amount", "on_front", "front_probability", "estimate", "low", "high"),
    "views": ("cost", "budget", "amount", "estimate", "low", "high", "tied", "undecided"),
    "runs": (
        METRIC_COLUMNS,
        "eval_loss_nats",
        "learning_rate",
        "effective_batch_size",
        "updates",
        "tokens",
        "train_time_s",
        "flags",
        "left_out",
    ),
    "comparisons": COMPARISON,
    "evaluations_comparisons": ("evaluation", *COMPARISON),
    "memory": (
        "trainable_parameters",
        "adapter_bytes",
        "weights_bytes",
        "gradients_bytes",
        "optimizer_state_bytes",
    ),
    "ledger": (
        "peak_bytes",
        "measured_peak_bytes",
        "residual_fraction",
        "peak_phase",
        "weights_bytes",
        "gradients_bytes",
        "optimizer_state_bytes",
        "activations_bytes",
        "temporary_bytes",
        "sequence_length_tokens",
        "mean_batch_length_tokens",
        "p99_batch_length_tokens",
        "mean_batch_peak_bytes",
        "p99_batch_peak_bytes",
    ),
    "throughput": (
        "update_time_s",
        "forward_time_s",
        "backward_time_s",
        "optimizer_time_s",
        "throughput_samples_per_s",
        "throughput_tokens_per_s",
        "energy_joules",
    ),
    "flops": (
        "step_flops",
        "forward_flops",
        "backward_flops",
        "optimizer_amortised_flops",
        "epoch_flops",
    ),
    "forward": (
        "batch_size",
        "sequence_length_tokens",
        "merged",
        "forward_latency_s",
        "throughput_samples_per_s",
        "throughput_tokens_per_s",
        "forward_flops",
    ),
    "fits": (
        "memory_gib",
        "sequence_length_tokens",
        "largest_batch_size",
        "largest_length_tokens",
        "peak_bytes",
    ),
    "search": ("trial", "learning_rate", "selection_loss_nats", "selected", "updates"),
}
# A table can be filtered by the first of these columns that has two to MAX_FACETS values.
FACETS = ("verdict", "evaluation", "metric", "model", "dataset")
MAX_FACETS = 8
# Columns that stand in the caption if they have one value.
SHARED = ("model", "dataset", "split", "device", "metric")
SCORES = ("estimate", "low", "high", "difference", "margin")  # columns in the metric's unit
SPOKEN = ("cost", "task")  # columns whose values are names of quantities


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        html: what it shows.
        order: what sorts it, if that is not what it shows.
        exact: what is shown when it is hovered, if anything.
    """

    html: str
    order: str = ""
    exact: str = ""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: its name in the files.
        heading: its heading.
        unit: its unit, or nothing.
        number: whether its cells are numbers.
        shown: whether it is shown at first.
    """

    name: str
    heading: str
    unit: str
    number: bool
    shown: bool


class Sheet(NamedTuple):
    """A table of the page.

    Attributes:
        key: its name in links.
        title: its title.
        caption: what all of its rows have in common.
        columns: its columns.
        rows: its cells.
        facet: the index of the column that filters it, with its values and their numbers of rows.
        link: the path of its files, without the ending.
        left: how many further rows only the files have.
        keys: what the filters look at: key -> a list for each of its columns, with a value for each
            row.
    """

    key: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    facet: tuple[int, list[tuple[str, int]]] | None
    link: str
    left: int
    keys: dict[str, list[list]]

    @property
    def first_rows(self) -> list[list[Cell]]:
        """The rows that the page holds without scripts."""
        return self.rows[:FIRST_ROWS]

    def content(self) -> dict[str, object]:
        """All rows and their keys for the page's scripts; a cell without more is its text alone."""
        rows = []
        for row in self.rows:
            rows.append([_compact(cell) for cell in row])
        return {"rows": rows, "keys": self.keys}


def _compact(cell: Cell) -> str | list[str]:
    exact = cell.exact if cell.exact != cell.html else ""
    if exact:
        return [cell.html, cell.order, exact]
    return [cell.html, cell.order] if cell.order else cell.html


def _shown_at_first(key: str) -> list[str]:
    """The columns of a table in SHOWN, with those of the metrics; none for another table."""
    names = []
    for name in SHOWN.get(key, ()):
        if name == METRIC_COLUMNS:
            names += METRICS  # as the table of runs has them
            names += [column for metric in METRICS.values() for column in metric.shown]
        else:
            names.append(name)
    return names


def sheet(key: str, frame: pd.DataFrame, labels: dict[str, str], link: str) -> Sheet:
    """One table of the page.

    Methods are shown by their labels and runs as links. Empty columns, and columns that are the
    same in all rows, are left out; the latter are in the caption.

    Args:
        key: the name of the table.
        frame: its rows.
        labels: the label of each method.
        link: the path of its files from the page, without the ending.
    """
    frame = frame.dropna(axis="columns", how="all")
    shared = [name for name in SHARED if _is_constant(frame, name)]
    caption = ", ".join(str(frame[name].iloc[0]) for name in shared)
    in_percent = "metric" in shared and _is_fraction(frame["metric"].iloc[0])
    keys = filter_keys(frame.head(MAX_ROWS))
    rows = frame.drop(columns=shared).head(MAX_ROWS)
    if "status" in rows and (rows["status"] == "ok").all():
        rows = rows.drop(columns="status")
    at_first = _shown_at_first(key)
    order = dict.fromkeys([*CELL, RUN, *at_first, *rows])
    names = [name for name in order if name in rows]
    shown = {*CELL, "status", "reason", RUN, *(at_first if key in SHOWN else names)}
    columns, cells_by_column = [], []
    for name in names:
        quantity = f"{name}_fraction" if in_percent and name in SCORES else name
        column, cells = _column(name, quantity, rows[name], name in shown, labels)
        columns.append(column)
        cells_by_column.append(cells)
    return Sheet(
        key,
        TITLES.get(key, key.replace("_", " ").capitalize()),
        caption,
        columns,
        [list(cells) for cells in zip(*cells_by_column, strict=True)],
        _facet(names, rows),
        link,
        len(frame) - len(rows),
        keys,
    )


def filter_keys(rows: pd.DataFrame) -> dict[str, list[list]]:
    """What the page's filters look at, of each row; see `Sheet.keys`."""
    keys: dict[str, list[list]] = {}
    for key, columns in FILTERED.items():
        for column in columns:
            if column in rows:
                values = rows[column].astype(object).where(rows[column].notna(), None)
                keys.setdefault(key, []).append(values.tolist())
    return keys


def _is_constant(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and len(frame) > 0 and frame[name].nunique(dropna=False) == 1


def _facet(names: list[str], rows: pd.DataFrame) -> tuple[int, list[tuple[str, int]]] | None:
    for name in FACETS:
        if name in rows and 1 < rows[name].nunique() <= MAX_FACETS:
            counts = rows[name].value_counts(sort=False)
            return names.index(name), [(str(value), int(count)) for value, count in counts.items()]
    return None


# Cells -----------------------------------------------------------------------------------------


def _column(
    name: str, quantity: str, values: pd.Series, shown: bool, labels: dict[str, str]
) -> tuple[Column, list[Cell]]:
    """A column and its cells; its unit follows from the name `quantity`."""
    if name == RUN:
        return Column(name, "run", "", False, shown), [_link(value) for value in values]
    is_bool = pd.api.types.is_bool_dtype(values)
    is_number = pd.api.types.is_numeric_dtype(values) and not is_bool
    as_shown = reading(quantity, values)
    if is_number:
        cells = [_number_cell(name, value, as_shown.text) for value in values]
    else:
        if name.startswith("method"):
            values = values.map(lambda value: labels.get(value, value))
        cells = [_text_cell(name, value) for value in values]
    return Column(name, as_shown.heading, as_shown.unit, is_number, shown), cells


def _number_cell(name: str, value: float, text: Callable[[float], str]) -> Cell:
    has_no_rank = name.startswith("rank") and value == 0
    if pd.isna(value) or has_no_rank:
        return Cell("", "-1")
    return Cell(text(float(value)), f"{float(value):.10g}", f"{float(value):,.10g}")


def _text_cell(name: str, value: object) -> Cell:
    if pd.isna(value):
        return Cell("", "-1")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    text = str(value).replace("_", " ") if name in SPOKEN else str(value)
    return Cell(html.escape(text))


def _link(run: object) -> Cell:
    return Cell(f'<a href="#run/{run}">{run[:8]}</a>' if isinstance(run, str) else "")


def _is_fraction(metric: str) -> bool:
    """Whether people see a metric in per cent. Those of evaluations are not all in METRICS."""
    return METRICS[metric].is_fraction if metric in METRICS else metric.endswith("_fraction")
