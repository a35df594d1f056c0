"""One row of a dataset's file as its format has it, and the sentences on rows that do not fit."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.core import templates

SHOWN_CHARACTERS = 60


class Record(NamedTuple):
    """One row of a file.

    Attributes:
        where: Where the row begins: "row 7" is line 7 of the file (the seventh row of a Parquet
            file), "member x/pos/1.txt" a file of an archive.
        cells: Value of each column. Values are texts, except for those of JSON and Parquet.
    """

    where: str
    cells: dict[str, object]


def problem(path: Path, where: str, what: str) -> ValueError:
    """The error of one row, to be raised, or to be listed before the next row is read.

    Args:
        path: The file.
        where: The row, as `Record.where` has it.
        what: What is wrong, what is allowed and what to do.
    """
    return ValueError(f"{path}: {where}: {what}")


def shown(value: object) -> str:
    """A value as messages show it: its `repr`, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def text_columns(dataset: dict) -> list[str]:
    """The columns that make up the text of a row, in their order.

    Args:
        dataset: A dataset entry; its `text` is one column or a list of columns. Of an entry with
            prompts and answers, it is what the prompts are made of.
    """
    if "messages" in dataset:
        return [dataset["messages"]]
    if "prompt" in dataset:
        return templates.columns(dataset["prompt"])
    columns = dataset["text"]
    return [columns] if isinstance(columns, str) else columns


def label_columns(dataset: dict) -> list[str]:
    """The columns that hold the labels, in their order; none without labels.

    Args:
        dataset: A dataset entry; its `label`, if any, is one column or a list of columns. Of an
            entry with prompts and answers, it is what the answers are made of.
    """
    if "answer" in dataset:
        return templates.columns(dataset["answer"])
    columns = dataset.get("label", [])
    return [columns] if isinstance(columns, str) else columns


def check_columns(path: Path, present: list[str], dataset: dict) -> None:
    """Check that a file has the columns of the entry.

    Args:
        path: The file.
        present: The file's columns.
        dataset: A dataset entry, with `text` and, for classes, `label`.

    Raises:
        ValueError: The file lacks one of them, or two columns have one name.
    """
    for name in present:
        if present.count(name) > 1:
            raise ValueError(f"{path}: column {name!r} stands twice, allowed: once")
    for name in [*text_columns(dataset), *label_columns(dataset)]:
        if name not in present:
            raise ValueError(f"{path}: no column {name!r}, allowed: {names_of(present)}")


def names_of(columns: Iterable[str]) -> str:
    """Names of columns as messages list them: in quotes if they have something that is not seen."""
    names = []
    for column in columns:
        is_plain = column.isprintable() and column == column.strip()
        names.append(column if is_plain else repr(column))
    return ", ".join(names)
