"""Write a table as CSV and Parquet for programs, and as Markdown and LaTeX for papers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from rankwise.analysis import latex, shown
from rankwise.analysis.shown import MARKS, headings, intervals
from rankwise.core import csv_cells, result
from rankwise.core.files import durable_write
from rankwise.core.keys import GROUP

# Columns that are text even where all values look like numbers, or all are empty: CSV does not
# tell. An entry may be called 007 or true.
TEXTS = (
    *GROUP, "method", "method_a", "method_b", "claim",
    "evaluation", "request_digest", "environment_digest", "reason", "note", "taint", "flags",
    "warning", "tied", "undecided", "best",
)  # fmt: skip


# Files --------------------------------------------------------------------------------------------


def write(frame: pd.DataFrame, stem: Path, notes: Sequence[str] = ()) -> None:
    """Write `stem`.csv, .md, .tex and .parquet, each whole or not at all.

    Args:
        frame: The table.
        stem: Path of the files without an ending.
        notes: Paragraphs under the table, in the Markdown and the LaTeX.
    """
    result.write_text(stem.with_name(f"{stem.name}.csv"), csv_text(frame))
    result.write_text(stem.with_name(f"{stem.name}.md"), markdown(frame, notes))
    result.write_text(stem.with_name(f"{stem.name}.tex"), latex.table(frame, notes))
    write_parquet(frame, stem.with_name(f"{stem.name}.parquet"))


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV whose text cells no spreadsheet runs as formulas (core/csv_cells.py)."""
    return _with_texts(frame, csv_cells.safe).to_csv(index=False)


def _with_texts(frame: pd.DataFrame, change: Callable[[object], object]) -> pd.DataFrame:
    """A table whose names and texts are changed; numbers among them, and empty columns, stay."""
    changed = {}
    for column in frame:
        if frame[column].dtype.kind not in "biufM":
            cells = [change(cell) for cell in frame[column]]
            changed[column] = pd.Series(cells, frame.index, frame[column].dtype)
    return frame.assign(**changed).rename(columns=change)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with its column types, whole or not at all."""
    with durable_write(path) as part:
        frame.to_parquet(part, index=False, compression="zstd")


def read(path: Path) -> pd.DataFrame:
    """Read a table's CSV as it was written: the columns of TEXTS stay text.

    Only an empty field is missing. pandas would take words such as `null` and `nan` for missing
    values, too, and an entry may be called that.
    """
    texts = dict.fromkeys(TEXTS, str)
    frame = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    return _with_texts(frame, csv_cells.plain)


# For people ---------------------------------------------------------------------------------------


def formatted(
    frame: pd.DataFrame, bold: Callable[[str], str], escape: Callable[[str], str]
) -> pd.DataFrame:
    """Every value as text under its heading.

    Args:
        frame: The table. Where it has a column `best`, the best metrics are bold and others get the
            marks of MARKS.
        bold: Makes a text bold in the target format.
        escape: Makes a text safe in the target format.

    Returns:
        The columns that people see; a metric's interval stands behind it in brackets.
    """
    best = frame.get("best", pd.Series("", frame.index)).fillna("")
    columns = {}
    for name in shown.seen(frame):
        texts = [_text(name, value) for value in frame[name]]
        if name in intervals():
            texts = _metric_texts(frame, name, texts, best)
            is_bold = [
                mark == "best" and text != "" for mark, text in zip(best, texts, strict=True)
            ]
        else:
            is_bold = [False] * len(texts)
        escaped = [escape(text) for text in texts]
        columns[escape(headings().get(name, name))] = [
            bold(text) if strong else text for text, strong in zip(escaped, is_bold, strict=True)
        ]
    return pd.DataFrame(columns, dtype=object)


def _metric_texts(frame: pd.DataFrame, name: str, texts: list[str], best: pd.Series) -> list[str]:
    """The texts of a metric's column with their intervals and marks: `91.20 [90.10, 92.30]†`."""
    unknown = pd.Series(float("nan"), frame.index)
    low, high = (frame.get(end, unknown) for end in intervals()[name])
    rows = zip(texts, low, high, best, strict=True)
    return [_with_interval(*row) for row in rows]


def _with_interval(text: str, low: float, high: float, best: str) -> str:
    if not text:
        return ""
    interval = "" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{text}{interval}{MARKS.get(best, '')}"


def _text(name: str, value: object) -> str:
    """One value as people see it; its column's name says how many digits it has."""
    if pd.isna(value):
        return ""
    if isinstance(value, str) or pd.api.types.is_bool(value):
        return str(value)
    if shown.has_two_decimals(name):
        return f"{value:.2f}"
    if name in shown.NAMES:
        return shown.number_of_name(name, value)
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}" if name.endswith(("_mib", "_s")) else f"{value:.6g}"


def numeric(frame: pd.DataFrame) -> list[bool]:
    """Which of the columns that people see hold numbers: they are set flush right."""
    return [pd.api.types.is_numeric_dtype(frame[name]) for name in shown.seen(frame)]


# Markdown -----------------------------------------------------------------------------------------


def markdown(frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A pipe table, with each note as a paragraph under it."""
    table = formatted(frame, "**{}**".format, _markdown_text)
    rule = ["---:" if is_number else "---" for is_number in numeric(frame)]
    rows = [table.columns, rule, *table.itertuples(index=False)]
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    paragraphs = [f"\n{note}\n" for note in notes]
    return "".join([*lines, *paragraphs])


def _markdown_text(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
