"""Labels that are no single class: numbers, several classes, a tag for each word.

A label that is no such thing is refused with the row that has it. Classes are read by the rules of
`labels`.
"""

import math
import re
from pathlib import Path

from rankwise.data.record import Record, names_of, problem, shown

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
SIGNS = {0: 0, 1: 1, "0": 0, "1": 1}  # of a column of one class


def number(record: Record, dataset: dict, path: Path) -> float:
    """The label of a regression.

    Raises:
        ValueError: It is no finite number.
    """
    value = _cell(record, dataset["label"], path)
    found = as_number(value)
    if found is None:
        got = "nothing" if value in (None, "") else shown(value)
        what = f"column {dataset['label']!r} is {got}, allowed: a finite number, such as 3.5"
        raise problem(path, record.where, what)
    return found


def as_number(value: object) -> float | None:
    """A cell as a finite number; None if it is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and NUMBER.fullmatch(value)):
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def classes(record: Record, dataset: dict, path: Path) -> list[int]:
    """Which classes a row has: 0 or 1 for each of the entry's classes.

    The label is one column with a list of names of classes, or a column of 0 and 1 for each class.

    Raises:
        ValueError: A name is no class or is there twice, or a cell is neither 0 nor 1.
    """
    if isinstance(dataset["label"], list):
        return [_sign(record, name, path) for name in dataset["label"]]
    value = _cell(record, dataset["label"], path)
    if not isinstance(value, list):
        what = f"column {dataset['label']!r} is {shown(value)}, allowed: a list of names of classes"
        raise problem(path, record.where, what)
    for name in value:
        if name not in dataset["classes"] or value.count(name) > 1:
            allowed = ", ".join(dataset["classes"])
            what = f"column {dataset['label']!r} has {shown(name)}, allowed: {allowed}, each once"
            raise problem(path, record.where, what)
    return [int(name in value) for name in dataset["classes"]]


def _sign(record: Record, name: str, path: Path) -> int:
    value = _cell(record, name, path)
    if isinstance(value, list | dict) or value not in SIGNS:
        got = "nothing" if value in (None, "") else shown(value)
        what = f"column {name!r} is {got}, allowed: 0 or 1"
        raise problem(path, record.where, what)
    return SIGNS[value]


def words(record: Record, dataset: dict, path: Path) -> list[str]:
    """The words of a row whose words have tags.

    Raises:
        ValueError: The column is no list of texts that are not empty.
    """
    name = dataset["text"]
    value = _cell(record, name, path)
    if not isinstance(value, list) or not value:
        what = f"column {name!r} is {shown(value)}, allowed: a list of words"
        raise problem(path, record.where, what)
    for word in value:
        if not isinstance(word, str) or not word.strip():
            what = f"column {name!r} has {shown(word)}, allowed: words that are not blank"
            raise problem(path, record.where, what)
    return value


def tags(record: Record, dataset: dict, path: Path, count: int) -> list[int]:
    """The index of the class of each word.

    Args:
        record: A row of the file.
        dataset: A dataset entry.
        path: The file, for messages.
        count: How many words the row has.

    Raises:
        ValueError: A tag is neither the name nor the number of a class, or their number differs.
    """
    name = dataset["label"]
    value = _cell(record, name, path)
    if not isinstance(value, list) or len(value) != count:
        got = f"{len(value)} tags" if isinstance(value, list) else shown(value)
        what = f"column {name!r} is {got}, allowed: a list of {count} tags, one for each word"
        raise problem(path, record.where, what)
    return [_tag(tag, record, dataset, path) for tag in value]


def _tag(tag: object, record: Record, dataset: dict, path: Path) -> int:
    names, first = dataset["classes"], dataset["first_label"]
    if isinstance(tag, str) and tag in names:
        return names.index(tag)
    is_index = isinstance(tag, int) and not isinstance(tag, bool)
    if is_index and 0 <= tag - first < len(names):
        return tag - first
    last = first + len(names) - 1
    what = (
        f"column {dataset['label']!r} has the tag {shown(tag)}, allowed: {', '.join(names)}, or "
        f"their numbers {first} to {last}"
    )
    raise problem(path, record.where, what)


def _cell(record: Record, name: str, path: Path) -> object:
    if name not in record.cells:
        allowed = names_of(record.cells) or "nothing: the row is empty"
        raise problem(path, record.where, f"no column {name!r}, allowed: {allowed}")
    return record.cells[name]
