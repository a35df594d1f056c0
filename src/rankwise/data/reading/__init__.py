"""Read the rows of a dataset's file exactly as they were written, or refuse them.

Parquet is read by Hugging Face `datasets`. The other formats are read here, line by line, because
`load_dataset` changes what they hold without a word, and knows no line numbers (5.2.0, tried): in
CSV, rows with one cell too many shift into an index, missing cells become null, "NA" becomes null
and "007" becomes 7.0, an open quote swallows rows, blank lines are skipped and `"a"b` becomes `ab`;
in JSON, a column of ISO dates becomes timestamps and a missing key null; in texts, carriage returns
are changed and a byte order mark stays. What is read here goes into a `datasets` table later, with
the types of its columns given, so nothing is inferred there. Files of the hub are read in the same
way, from the cache of `huggingface_hub`, which `load_dataset` does not look into without a network.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rankwise.data import texts
from rankwise.data.reading.archives import archive_rows
from rankwise.data.reading.json_objects import json_columns, json_rows
from rankwise.data.reading.lines import numbered_lines
from rankwise.data.reading.parquet import parquet_rows
from rankwise.data.reading.tables import table_columns, table_rows
from rankwise.data.reading.zipped import zipped_rows
from rankwise.data.record import Record

MAX_PROBLEMS = 20


def records(path: Path, dataset: dict, split: str) -> Iterator[Record]:
    """The rows of a file, in the order of the source.

    Args:
        path: The file of the split on this machine.
        dataset: A dataset entry with `hub` or `files`.
        split: The name of the split.

    Raises:
        ValueError: The file cannot be read, or a row does not fit; says which row.
        FileNotFoundError: The file is not there.
    """
    for row in _rows(path, dataset, split):
        if isinstance(row, ValueError):
            raise row
        yield row


def fitting_records(path: Path, dataset: dict, split: str) -> Iterator[Record]:
    """The rows of a file that can be read, as far as it can; the others are in `problems`.

    Args:
        path: The file of the split on this machine.
        dataset: A dataset entry with `hub` or `files`.
        split: The name of the split.
    """
    with contextlib.suppress(ValueError, OSError):  # nothing can be read after it
        for row in _rows(path, dataset, split):
            if isinstance(row, Record):
                yield row


def problems(path: Path, dataset: dict, split: str) -> list[str]:
    """Every row of a file that does not fit, as far as the file can be read after it.

    Args:
        path: The file of the split on this machine.
        dataset: A dataset entry with `hub` or `files`.
        split: The name of the split.

    Returns:
        At most 20 sentences, and one on the number of those left out; empty if every row fits.
    """
    sentences: list[str] = []
    count = 0
    for error in _errors(path, dataset, split):
        count += 1
        if count <= MAX_PROBLEMS:
            sentences.append(str(error))
    if count > MAX_PROBLEMS:
        sentences.append(f"{path}: and {count - MAX_PROBLEMS} more")
    return sentences


def columns(path: Path, dataset: dict) -> list[str] | None:
    """The columns of a file, from its first row; None for a format whose rows do not name them.

    Args:
        path: The file.
        dataset: A dataset entry with `hub` or `files`.

    Raises:
        ValueError: The first row cannot be read, or names no columns.
    """
    file_format = _format(dataset)
    if file_format in ("csv", "tsv"):
        return table_columns(path, file_format, dataset)
    return json_columns(path) if file_format in ("json", "jsonl") else None


def _format(dataset: dict) -> str:
    return (dataset.get("files") or dataset["hub"])["format"]


def _errors(path: Path, dataset: dict, split: str) -> Iterator[Exception]:
    try:
        for row in _rows(path, dataset, split):
            if isinstance(row, ValueError):
                yield row
                continue
            try:
                texts.text(row, dataset, path)
            except ValueError as error:
                yield error
    except (ValueError, OSError) as error:  # nothing can be read after it
        yield error


def _rows(path: Path, dataset: dict, split: str) -> Iterator[Record | ValueError]:
    """The rows of a file in any format, or what is wrong with them; at least one."""
    count = 0
    for row in _by_format(path, dataset, split):
        count += 1
        yield row
    if not count:
        raise ValueError(f"{path}: has no rows, allowed: at least one")


def _by_format(path: Path, dataset: dict, split: str) -> Iterator[Record | ValueError]:
    file_format = _format(dataset)
    if file_format == "tar":
        return archive_rows(path, dataset, split)
    if file_format == "zip":
        return zipped_rows(path, dataset, split)
    if file_format == "parquet":
        return parquet_rows(path, dataset)
    if file_format == "text":
        return _text_rows(path)
    if file_format in ("json", "jsonl"):
        return json_rows(path)
    return table_rows(path, file_format, dataset)


def _text_rows(path: Path) -> Iterator[Record]:
    """The lines of a text file; line ends stay, because a language model learns them."""
    for number, line in numbered_lines(path):
        yield Record(f"row {number}", {"text": line})
