"""Which columns a table has in LaTeX, with their heads, units and rounded values.

A paper has less room than a file: columns with one value in all rows become a note, an interval
stands behind its value in brackets, sizes and times have a unit that fits them, and digests and
commands stay in the CSV.
"""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from rankwise.analysis.shown import (
    MARKS,
    NAMES,
    has_two_decimals,
    headings,
    intervals,
    number_of_name,
    seen,
)
from rankwise.core.keys import GROUP
from rankwise.core.units import unit

# Columns that only a program or a reader of the CSV needs.
ONLY_IN_CSV = frozenset({
    "request_digest", "environment_digest", "command", "definition", "source", "needs", "title",
    "column",
})  # fmt: skip
LONGEST_TEXT = 160  # letters: a column with longer texts is only in the CSV, except the status
# Column -> the columns of its interval; the first of them that a table has gets it.
ESTIMATES = ("estimate", "difference", "ours")
INTERVAL_NOTE = "In brackets: the 95 % interval."
QUARTILE_NOTE = "In brackets: the quartiles."
# Units by the ending of a column's name: (units of the column in one, name), from large to small.
BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
FLOPS = (
    (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"),
    (1e3, "kFLOP"), (1, "FLOP"),
)  # fmt: skip
SECONDS = ((3600, "h"), (1, "s"), (1e-3, "ms"), (1e-6, "\N{MICRO SIGN}s"))
SCALES = {  # ending -> base units in one unit of the column, and the units to choose from
    "_bytes": (1, BYTES),
    "_kib": (2**10, BYTES),
    "_mib": (2**20, BYTES),
    "_gib": (2**30, BYTES),
    "_flops": (1, FLOPS),
    "_s": (1, SECONDS),
}
DIGITS = 4  # significant digits of a number that is not whole


class Column(NamedTuple):
    """A column as people see it.

    Attributes:
        name: its name in the table.
        head: its heading with the unit in parentheses.
        texts: the text of each row, not escaped.
        is_number: whether it is set flush right.
        is_bold: which rows are bold.
    """

    name: str
    head: str
    texts: list[str]
    is_number: bool
    is_bold: list[bool]


class Choice(NamedTuple):
    """The columns of a table, and what a reader must know of the others.

    Attributes:
        columns: in the order of the table.
        notes: sentences on constant columns, brackets and columns that are left out.
    """

    columns: list[Column]
    notes: list[str]


def choose(frame: pd.DataFrame, most: int) -> Choice:
    """The columns that a reader of a paper needs.

    Args:
        frame: The whole table; a column is constant if all its rows have one value.
        most: The columns have the texts of at most so many of the first rows.
    """
    ends = _interval_ends(frame)
    bounds = {name for pair in ends.values() for name in pair}
    names = [name for name in seen(frame) if name not in bounds and frame[name].notna().any()]
    kept_in_csv = [name for name in names if _is_only_in_csv(frame, name)]
    names = [name for name in names if name not in kept_in_csv]
    constant = [name for name in names if _is_constant(frame, name)]
    shown = [name for name in names if name not in constant]
    top = frame.head(most)
    columns = [_column(top, name, ends.get(name)) for name in shown]
    notes = []
    if constant:
        texts = [_constant_text(frame, name) for name in constant]
        notes.append(f"In all rows: {', '.join(texts)}.")
    notes += _bracket_notes(frame, [name for name in shown if name in ends])
    if kept_in_csv:
        notes.append(f"Only in the CSV: {', '.join(map(_words, kept_in_csv))}.")
    return Choice(columns, notes)


def _is_only_in_csv(frame: pd.DataFrame, name: str) -> bool:
    if name in ONLY_IN_CSV:
        return True
    texts = frame[name].dropna().astype(str)
    return name != "status" and texts.str.len().max() > LONGEST_TEXT


def _interval_ends(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Column -> the columns of its interval or quartiles, where the table has them."""
    ends = {name: pair for name, pair in intervals().items() if {name, *pair} <= set(frame.columns)}
    owner = next((name for name in ESTIMATES if name in frame), None)
    if owner and {"low", "high"} <= set(frame.columns):
        ends[owner] = ("low", "high")
    for name in frame:
        pair = (f"{name[:-2]}_q1_s", f"{name[:-2]}_q3_s")
        if name.endswith("_s") and set(pair) <= set(frame.columns):
            ends[name] = pair
    return ends


def _bracket_notes(frame: pd.DataFrame, names: list[str]) -> list[str]:
    """Notes on the brackets of these columns; those of a table with `best` have them already."""
    has_quartiles = any(name.endswith("_s") for name in names)
    has_interval = any(not name.endswith("_s") for name in names) and "best" not in frame
    notes = [INTERVAL_NOTE] if has_interval else []
    return [*notes, QUARTILE_NOTE] if has_quartiles else notes


def _is_constant(frame: pd.DataFrame, name: str) -> bool:
    """Whether all of several rows have one value. A metric with marks is always shown."""
    if len(frame) < 2 or name in intervals():
        return False
    return frame[name].nunique(dropna=False) == 1


def _constant_text(frame: pd.DataFrame, name: str) -> str:
    column = _column(frame.iloc[:1], name, None)
    head, _, unit_name = column.head.rstrip(")").partition(" (")
    return " ".join(filter(None, [head, column.texts[0] or "0", unit_name]))


# Heads and texts ----------------------------------------------------------------------------------


def _column(frame: pd.DataFrame, name: str, ends: tuple[str, str] | None) -> Column:
    values = frame[name]
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    best = frame["best"].fillna("") if "best" in frame and name in intervals() else None
    if not is_number:
        texts = [_word(value) for value in values]
        return Column(name, _words(name), texts, False, [False] * len(texts))
    head, text = _reading(name, values)
    texts = ["" if pd.isna(value) else text(float(value)) for value in values]
    if ends:
        texts = _with_intervals(texts, frame[ends[0]], frame[ends[1]], text)
    is_bold = [False] * len(texts)
    if best is not None:
        is_bold = [mark == "best" and value != "" for mark, value in zip(best, texts, strict=True)]
        marks = best.map(lambda mark: MARKS.get(mark, ""))
        texts = [value and value + mark for value, mark in zip(texts, marks, strict=True)]
    return Column(name, head, texts, True, is_bold)


def _with_intervals(
    texts: list[str], low: pd.Series, high: pd.Series, text: Callable[[float], str]
) -> list[str]:
    """The texts with their intervals: `91.20 [90.10, 92.30]`."""
    rows = zip(texts, low, high, strict=True)
    return [
        value if value == "" or pd.isna(a) else f"{value} [{text(float(a))}, {text(float(b))}]"
        for value, a, b in rows
    ]


def _word(value: object) -> str:
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    return "" if pd.isna(value) else str(value)


def _words(name: str) -> str:
    return headings().get(name, name.replace("_", " "))


def _reading(name: str, values: pd.Series) -> tuple[str, Callable[[float], str]]:
    """The head of a column of numbers, and how its values are shown."""
    if name in NAMES:
        return _words(name), lambda value: number_of_name(name, value)
    if has_two_decimals(name):
        return _words(name), "{:.2f}".format
    ending = next((e for e in SCALES if name.endswith(e) and not name.endswith("_per_s")), None)
    if ending:
        size, unit_name = _scale(ending, values)
        stem = (
            _words(name).partition(" (")[0] if name in headings() else _words(name[: -len(ending)])
        )
        return f"{stem} ({unit_name})", lambda value: rounded(value / size)
    unit_name = unit(name)
    if unit_name == "/s":
        return f"{_words(name.removesuffix('_per_s'))} (1/s)", rounded
    if unit_name in ("nats", "J", "W"):
        stem = name.rpartition("_")[0]
        return f"{_words(stem)} ({unit_name})", rounded
    return _words(name), rounded


def _scale(ending: str, values: pd.Series) -> tuple[float, str]:
    """The largest unit that is not larger than the median, in units of the column, and its name."""
    base, units = SCALES[ending]
    sizes = values.dropna().astype(float).abs() * base
    if not (sizes > 0).any():
        return 1, _base(ending)
    middle = sizes[sizes > 0].median()
    size, name = next(((size, name) for size, name in units if size <= middle), units[-1])
    return size / base, name


def _base(ending: str) -> str:
    """The unit of a column of zeros."""
    return {"_kib": "KiB", "_mib": "MiB", "_gib": "GiB", "_flops": "FLOP", "_s": "s"}.get(
        ending, "B"
    )


def rounded(value: float) -> str:
    """A whole number with separators of thousands, or DIGITS significant digits.

    Very small and very large numbers are powers of ten: `1.250e-05`.
    """
    if abs(value) < 1e15 and value.is_integer():
        return f"{value:,.0f}"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:#.{DIGITS}g}".rstrip(".")
    if 1e4 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return (
        f"{value:.{DIGITS - 1}e}" if pd.notna(value) and abs(value) != float("inf") else str(value)
    )


# Rows ---------------------------------------------------------------------------------------------

# Columns that tell rows apart, from coarse to fine; `GROUP` becomes a heading between the rows.
IDENTIFIERS = (
    "claim", "method", "rank", "method_a", "rank_a", "method_b", "rank_b", "seed", "cost", "budget",
    "trial", "epoch", "update", "phase", "event", "tensor", "group", "batch_size",
    "sequence_length_tokens", "memory_gib", "merged", "metric",
)  # fmt: skip


def identifiers(frame: pd.DataFrame, names: list[str]) -> list[str] | None:
    """The fewest of these columns, from coarse to fine, that tell all rows of a group apart.

    Args:
        frame: The table.
        names: The columns that may be used.

    Returns:
        None where no columns do.
    """
    chosen = [name for name in GROUP if name in frame]
    start = len(chosen)
    count = frame.groupby(chosen, dropna=False).ngroups if chosen else 1
    for name in IDENTIFIERS:
        if count == len(frame):
            break
        if name not in names:
            continue
        now = frame.groupby([*chosen, name], dropna=False).ngroups
        if now > count:
            chosen, count = [*chosen, name], now
    return chosen[start:] if count == len(frame) else None
