"""Find rows of a study's tables: by line, by column=value, or by the value of the first column.

Standard library only.
"""

import difflib
import re
from pathlib import Path

from rankwise.core import csv_cells
from rankwise.core.config import ConfigError

MOST_SHOWN = 12  # rows that a message lists
Row = dict[str, str]


def read(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a CSV file; empty lists if there is no such file."""
    if not path.is_file():
        return [], []
    return csv_cells.read(path)


def rows(path: Path, name: str, row: str, column: str | None, labels: dict[str, str]) -> list[Row]:
    """The rows of a CSV file that `row` names.

    Args:
        path: The file.
        name: What the file is called in messages.
        row: A line number (`3`), values of columns (`method=lora,rank=8`), or the value of the
            first column.
        column: A column that the file must have, or None.
        labels: Method -> its label in tables; a row may name the method by either.

    Raises:
        ConfigError: the file has no such line, row or column; the message lists what it has.
    """
    columns, all_rows = read(path)
    if not all_rows:
        raise ConfigError(name, "row", row, "rows of a table that is there; build it first")
    if column is not None and column not in columns:
        raise ConfigError(name, "column", column, columns)
    if row.isdecimal():
        return [_at_line(all_rows, int(row), name)]
    wanted = _wanted_values(row) if "=" in row else {columns[0]: row}
    for key in wanted:
        if key not in columns:
            raise ConfigError(name, "row", key, columns)
    matching = [one for one in all_rows if _matches(one, wanted, labels)]
    if not matching:
        raise ConfigError(name, "row", row, _nearest(row, all_rows, list(wanted)))
    return matching


def _at_line(all_rows: list[Row], line: int, name: str) -> Row:
    """The row at a line of the file, as an editor counts: line 1 is the heading."""
    if not 2 <= line <= len(all_rows) + 1:
        raise ConfigError(name, "line", line, f"2 to {len(all_rows) + 1}")
    return all_rows[line - 2]


def _wanted_values(row: str) -> dict[str, str]:
    """`method=lora,rank=8` -> column -> value.

    A comma inside a value is kept: only `,name=` starts a new one.
    """
    pairs = [part.partition("=") for part in re.split(r",(?=\w+=)", row)]
    return {column: value for column, _, value in pairs}


def _matches(row: Row, wanted: dict[str, str], labels: dict[str, str]) -> bool:
    return all(_is_same(row[column], value, labels) for column, value in wanted.items())


def _is_same(value: str, wanted: str, labels: dict[str, str]) -> bool:
    """Equal as text, as numbers (`8` and `8.0`), or as a method's name and label."""
    if wanted in (value, labels.get(value)) or value == labels.get(wanted):
        return True
    try:
        return float(value) == float(wanted)
    except ValueError:
        return False


def _nearest(row: str, all_rows: list[Row], columns: list[str]) -> str:
    """The rows that there are, by the columns that were asked for, the most similar first."""
    descriptions = dict.fromkeys(_description(one, columns) for one in all_rows)

    def dissimilarity(description: str) -> float:
        matcher = difflib.SequenceMatcher(None, description.lower(), row.lower())
        return -matcher.ratio()

    ordered = sorted(descriptions, key=dissimilarity)
    shown = ordered[:MOST_SHOWN]
    if len(ordered) > MOST_SHOWN:
        shown.append(f"{len(ordered) - MOST_SHOWN} more")
    return "; ".join(shown)


def _description(row: Row, columns: list[str]) -> str:
    return ",".join(f"{column}={row[column]}" for column in columns)
