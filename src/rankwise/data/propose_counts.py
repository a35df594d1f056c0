"""Counts of the rows of a proposed dataset: classes in order, and lengths that fit the texts."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.core import tasks
from rankwise.data import labels, splits, texts
from rankwise.data.instructions import has_answers
from rankwise.data.propose_files import Files
from rankwise.data.record import Record, problem, shown

LISTS = (tasks.CLASSES, tasks.TAGS)  # labels that are lists of texts
SELECTION_SHARE = 0.1  # of the rows of train
MAX_SELECTION_ROWS = 1000
LONGEST_TOKENS, SHORTEST_TOKENS = 512, 8  # of a proposed length
STEP_TOKENS = 8  # a proposed length is a multiple of it
COVERED = 0.95  # share of the texts that the proposed length does not cut
BLOCK_TOKENS = (256, 128, 64, 32)  # of running text
MIN_BLOCKS = 20  # of the file, if its text is long enough for the shortest block
# English: a tokenizer makes about four tokens of three words, and one of four characters.
TOKENS_A_WORD, CHARACTERS_A_TOKEN = 4 / 3, 4
SPECIAL_TOKENS = 2  # such as [CLS] and [SEP]


class Counted(NamedTuple):
    """Counts of the rows.

    Attributes:
        rows: Split -> number of rows with a text.
        lengths_tokens: Estimated length of a text of train -> number of texts.
        labels: The labels of all splits; empty if a text has no single class.
        items: The names or tags of all splits, with their numbers; empty if labels are no lists.
    """

    rows: dict[str, int]
    lengths_tokens: Counter
    labels: labels.Column
    items: Counter


def count(entry: dict, records_by_split: dict[str, Iterable[Record]], files: Files) -> Counted:
    """Read all rows once.

    Args:
        entry: With `text`, `splits`, and `label` for classes.
        records_by_split: The rows of each split. A split with a `share` is not read: its rows are
            among those of train.
        files: For messages.

    Raises:
        ValueError: A row has no text, or no label.
    """
    counted = Counted({}, Counter(), labels.Column(), Counter())
    kind = tasks.facts(entry["task"]).labels
    for split, records in records_by_split.items():
        if "share" in entry["splits"][split]:
            continue
        path = files.path(split)
        counted.rows[split] = 0
        for record in records:
            text = texts.text(record, entry, path)
            if text is None:
                continue
            counted.rows[split] += 1
            if split == "train":
                answer = texts.target(record, entry, path) if has_answers(entry) else ""
                counted.lengths_tokens[estimated_tokens(f"{text} {answer}")] += 1
            if kind == tasks.CLASS:
                _add_label(record, entry["label"], path, counted.labels)
            elif kind in LISTS:
                counted.items.update(_items(record, entry["label"], path))
    return counted


def _items(record: Record, name: str, path: Path) -> list[str]:
    """The names or tags of a row."""
    value = record.cells.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        what = f"column {name!r} is {shown(value)}, allowed: a list of texts"
        raise problem(path, record.where, what)
    return value


def _add_label(record: Record, name: str, path: Path, column: labels.Column) -> None:
    label = record.cells.get(name)
    if label is None or label == "":
        raise ValueError(
            f"{path}: {record.where}: column {name!r} is empty, allowed: a label in every row; "
            "correct the row, or remove it"
        )
    column.add(label, f"{path}: {record.where}")


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, without a tokenizer."""
    by_words = len(text.split()) * TOKENS_A_WORD
    return math.ceil(max(by_words, len(text) / CHARACTERS_A_TOKEN))


# Classes ------------------------------------------------------------------------------------------


def classes(column: labels.Column) -> dict:
    """`classes` in their order, and `first_label` where the labels are numbers from another one on.

    Numbers are ordered as numbers, names by letters.

    Args:
        column: All labels.
    """
    names = {class_name(key) for key in column.places}
    if not all(labels.WHOLE_NUMBER.fullmatch(name) for name in names):
        return {"classes": sorted(names)}
    numbers = sorted(map(int, names))
    found: dict = {"classes": [str(number) for number in numbers]}
    is_gapless = numbers[-1] - numbers[0] + 1 == len(numbers)
    if is_gapless and numbers[0] != 0:
        found["first_label"] = numbers[0]  # so that a label's name and its number are one class
    return found


def class_name(key: labels.Key) -> str:
    """The name of the class that a label stands for, as `labels` reads it."""
    kind, label = key
    if kind is bool:
        return str(label).lower()
    if kind is float and label.is_integer():
        return str(int(label))
    return str(label)


def class_counts(entry: dict, counted: Counted) -> dict[str, int]:
    """Class -> number in all files, in the order of the classes; empty without classes.

    Args:
        entry: The entry with its defaults.
        counted: What the rows hold.
    """
    counts = {name: counted.items[name] for name in entry.get("classes", [])}
    for key, number in counted.labels.counts.items():
        counts[class_name(key)] += number
    return counts


# Sizes --------------------------------------------------------------------------------------------


def sizes(counted: Counted, entry: dict, length: int | None, notes: list[str]) -> dict:
    """`max_length_tokens`, `train_samples` and `selection_rows`.

    Args:
        counted: What the rows hold.
        entry: With `task`, `splits` and `report_split`.
        length: `max_length_tokens`, if the user says it.
        notes: Gets a sentence on the length.
    """
    share = entry["splits"][entry["report_split"]].get("share")
    train = counted.rows["train"]
    if share is not None:
        train -= splits.shared_rows(share, train)
    selection = min(MAX_SELECTION_ROWS, max(math.ceil(SELECTION_SHARE * train), 1))
    if counted.labels.places:  # a row of each class, where there are enough rows
        number = len({class_name(key) for key in counted.labels.places})
        selection = max(selection, min(2 * number, train // 2))
    return {
        "max_length_tokens": _length(counted, entry, notes) if length is None else length,
        "train_samples": train,
        "selection_rows": max(selection, 1),
    }


def _length(counted: Counted, entry: dict, notes: list[str]) -> int:
    if entry["task"] == texts.RUNNING_TEXT:
        total = sum(length * number for length, number in counted.lengths_tokens.items())
        fitting = [block for block in BLOCK_TOKENS if total >= MIN_BLOCKS * block]
        length = fitting[0] if fitting else BLOCK_TOKENS[-1]
        notes.append(f"about {total:,} tokens of running text, in blocks of {length}")
        return length
    covered = _percentile(counted.lengths_tokens, COVERED) + SPECIAL_TOKENS
    length = STEP_TOKENS * math.ceil(covered / STEP_TOKENS)
    length = min(max(length, SHORTEST_TOKENS), LONGEST_TOKENS)
    cut = sum(
        number
        for tokens, number in counted.lengths_tokens.items()
        if tokens + SPECIAL_TOKENS > length
    )
    notes.append(
        f"max_length_tokens {length}: estimated from words and characters, it cuts about {cut:,} "
        f"of {counted.lengths_tokens.total():,} texts"
    )
    return length


def _percentile(lengths: Counter, share: float) -> int:
    """The smallest length that at least this share of the texts does not exceed."""
    needed, seen = share * lengths.total(), 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= needed:
            return length
    return 0
