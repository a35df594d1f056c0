"""The text of a record."""

from pathlib import Path

from rankwise.data.reading import Record


def text(record: Record, dataset: dict, path: Path) -> str | None:
    """The text of a record: one column, or several joined by spaces."""
    columns = dataset["text"]
    names = [columns] if isinstance(columns, str) else columns
    for name in names:
        if name not in record.cells:
            allowed = ", ".join(map(str, record.cells))
            raise ValueError(f"{path}: {record.where}: no column {name!r}, allowed: {allowed}")
    return " ".join(str(record.cells[name]) for name in names)
