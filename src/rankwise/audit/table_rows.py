"""Rows of a study's tables, by line, by column=value or by what the first column says. Standard library only."""

import csv
import difflib
import re
from pathlib import Path

from rankwise.core.config import ConfigError

SHOWN = 12  # rows that a message lists


def read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV; none if it is not there."""
    if not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        return list(reader.fieldnames or []), list(reader)


def rows(
    path: Path, name: str, row: str, column: str | None, labels: dict[str, str]
) -> list[dict[str, str]]:
    """The rows of a CSV that `row` names: `3`, `method=lora,rank=8` (a method by its name or label) or `a_claim`.

    Raises:
        ConfigError: there is no such line, row or column in the file, called `name`; says which there are.
    """
    columns, there = read(path)
    if not there:
        raise ConfigError(name, "row", row, "rows of a table that is there; build it first")
    if column is not None and column not in columns:
        raise ConfigError(name, "column", column, columns)
    if row.isdecimal():
        if not 2 <= int(row) <= len(there) + 1:
            raise ConfigError(name, "line", int(row), f"2 to {len(there) + 1}")
        return [there[int(row) - 2]]
    wanted = (
        dict(part.partition("=")[::2] for part in re.split(r",(?=\w+=)", row))
        if "=" in row
        else {columns[0]: row}
    )
    for key in wanted:
        if key not in columns:
            raise ConfigError(name, "row", key, columns)
    found = [
        one for one in there if all(_is(one[key], value, labels) for key, value in wanted.items())
    ]
    if not found:
        raise ConfigError(name, "row", row, _nearest(row, there, list(wanted)))
    return found


def _is(value: str, wanted: str, labels: dict[str, str]) -> bool:
    """Equal as text, as numbers (`8` and `8.0`), or as a method's label and name."""
    if wanted in (value, labels.get(value)) or value == labels.get(wanted):
        return True
    try:
        return float(value) == float(wanted)
    except ValueError:
        return False


def _nearest(row: str, rows: list[dict[str, str]], names: list[str]) -> str:
    """The rows that there are, by the columns asked for, the nearest first."""
    there = list(dict.fromkeys(",".join(f"{name}={one[name]}" for name in names) for one in rows))
    there.sort(key=lambda one: -difflib.SequenceMatcher(None, one.lower(), row.lower()).ratio())
    more = [f"{len(there) - SHOWN} more"] * (len(there) > SHOWN)
    return "; ".join([*there[:SHOWN], *more])
