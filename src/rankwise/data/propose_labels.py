"""Which task the columns of a file are for, and which column holds the labels.

Classes are few, short, repeated values. Numbers with decimals and many distinct values are those of
a regression. Lists of names are several labels a text. A list of words beside a list with a tag for
each of them are tagged words. Where two readings fit, nothing is guessed: the sentence names them,
and the option that chooses.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.core import tasks
from rankwise.data import answers, propose_columns
from rankwise.data.propose_columns import LABEL_NAMES, MAX_CLASSES, Column, check_is_there
from rankwise.data.record import Record, names_of

CLASSIFICATION, REGRESSION = "classification", "regression"
MULTI_LABEL, TAGGING = "multi_label", "token_classification"
# Of numbers with decimals: so many distinct values, or fewer, could be the names of classes, too.
FEW_NUMBERS = 20
TAG_PARTS = ("B-", "I-")


class Meaning(NamedTuple):
    """The use of each column of a file.

    Attributes:
        task: The task of the entry.
        text: Columns of the text; of tagged words the one column of words.
        label: Column of the labels; None without labels.
        note: Why it is this task, where another one could be meant; else empty.
    """

    task: str
    text: list[str]
    label: str | None
    note: str = ""


class _Candidate(NamedTuple):
    """A column that could be the label of a task."""

    label: str
    task: str
    words: str | None = None  # the column of words that it has tags for

    def described(self, columns: dict[str, Column]) -> str:
        return f"{columns[self.label].described()} of a {self.task}"

    def option(self) -> str:
        words = f" --text {self.words}" if self.words else ""
        return f"--task {self.task} --label {self.label}{words}"


def meaning(
    columns: dict[str, Column], where: str, task: str | None, label: str | None, text: list[str]
) -> Meaning:
    """The task, the text and the label of a file.

    Args:
        columns: All columns.
        where: The file, for messages.
        task: The task that the user names, if any.
        label: The column of the label that the user names, if any.
        text: Columns that the user names as the text.

    Raises:
        ValueError: No column, or several, could be the label or the text; one sentence.
    """
    if label is not None:
        check_is_there(columns, where, "--label", [label])
    check_is_there(columns, where, "--text", text)
    kind = tasks.facts(task).labels if task else None
    if kind == tasks.NO_LABEL:
        if label is not None:
            raise ValueError(f"--label: got {label!r}, allowed: nothing for {task}")
        return Meaning(task, propose_columns.text(columns, where, text, None), None)
    chosen = None
    if kind != tasks.CLASS:
        fitting = [c for c in _candidates(columns, text) if label in (None, c.label)]
        chosen = _of_task(fitting, columns, where, task, label, text) if task else None
        chosen = chosen or _told(fitting, columns, where)
    if chosen is None or chosen.task == CLASSIFICATION:
        name = propose_columns.label(columns, where, label, text)
        names = propose_columns.text(columns, where, text, name)
        return Meaning(task or CLASSIFICATION, names, name)
    if chosen.words is not None:
        return Meaning(task or chosen.task, [chosen.words], chosen.label)
    names = propose_columns.text(columns, where, text, chosen.label)
    note = ""
    if task is None and chosen.task == REGRESSION:
        distinct = columns[chosen.label].distinct
        note = (
            f"{chosen.label} has {distinct} distinct numbers, so this is a regression; if they "
            f"are classes: --task {CLASSIFICATION}"
        )
    return Meaning(task or chosen.task, names, chosen.label, note)


# Candidates ---------------------------------------------------------------------------------------


def _candidates(columns: dict[str, Column], text: list[str]) -> list[_Candidate]:
    """Every column that could be a label, with the task that it would be the label of."""
    tagged = list(_tagged(columns, text))
    in_pairs = {name for pair in tagged for name in (pair.label, pair.words)}
    found = list(tagged)
    for name, column in columns.items():
        if name in text or name in in_pairs:
            continue
        if column.has_names():
            found.append(_Candidate(name, MULTI_LABEL))
        if column.has_decimals():
            found.append(_Candidate(name, REGRESSION))
        is_many_numbers = column.has_decimals() and len(column.values) > FEW_NUMBERS
        if column.is_label() and not column.is_text() and not is_many_numbers:
            found.append(_Candidate(name, CLASSIFICATION))
    return found


def _tagged(columns: dict[str, Column], text: list[str]) -> Iterator[_Candidate]:
    """Pairs of a column of words and one with a tag for each word."""
    lists = {name: column for name, column in columns.items() if column.has_lists()}
    for words, column in lists.items():
        if text and text != [words]:
            continue
        for tags, other in lists.items():
            is_same_length = tags != words and column.lengths == other.lengths
            if (
                is_same_length
                and all(map(_is_tag, other.items))
                and not all(map(_is_tag, column.items))
            ):
                yield _Candidate(tags, TAGGING, words)


def _is_tag(item: object) -> bool:
    return isinstance(item, str) and (item == "O" or item.startswith(TAG_PARTS))


# The choice ---------------------------------------------------------------------------------------


def _told(fitting: list[_Candidate], columns: dict[str, Column], where: str) -> _Candidate | None:
    """The candidate that the file itself tells; None if it is the label of a classification."""
    named = [one for one in fitting if one.label.lower() in LABEL_NAMES]
    left = named or fitting
    if len(left) == 1:
        return left[0]
    if {one.task for one in left} <= {CLASSIFICATION}:
        return None  # of several columns of classes, or of none, `propose_columns.label` speaks
    raise _unclear(left, columns, where)


def _of_task(
    fitting: list[_Candidate],
    columns: dict[str, Column],
    where: str,
    task: str,
    label: str | None,
    text: list[str],
) -> _Candidate:
    """The label of a task that the user names, and that has no single class a text."""
    kind = tasks.facts(task).labels
    if kind not in REQUIRED:
        raise ValueError(
            f"--task: got {task!r}, allowed: a task with classes, numbers, tags or no labels; "
            "write the entry of another one by hand: docs/extend/dataset.md"
        )
    required, of_task = REQUIRED[kind]
    left = [one for one in fitting if one.task == of_task]
    if kind == tasks.NUMBER:  # whole numbers, too, since the user says that they are numbers
        numbers = [name for name, column in columns.items() if column.has_numbers()]
        left = [_Candidate(name, of_task) for name in numbers if label in (None, name)]
    if not left and label is not None:  # a row may be wrong, which is named when rows are read
        left = list(_named(kind, of_task, columns, label, text))
    named = [one for one in left if one.label.lower() in LABEL_NAMES]
    if len(left) == 1 or len(named) == 1:
        return (named if len(named) == 1 else left)[0]
    if left:
        raise _unclear(left, columns, where)
    shown = [columns[label]] if label is not None else columns.values()
    got = "; ".join(column.described() for column in shown)
    raise ValueError(f"{where}: no label of a {task}: got {got}, allowed: {required}")


def _unclear(fitting: list[_Candidate], columns: dict[str, Column], where: str) -> ValueError:
    described = " or ".join(dict.fromkeys(one.described(columns) for one in fitting))
    return ValueError(
        f"{where}: the label could be {described}, allowed: one column and task; choose, such as "
        f"{fitting[0].option()}"
    )


# Kind of labels -> what is required, in words, and the task of the candidates.
REQUIRED = {
    tasks.NUMBER: (
        "a column of at least 2 different finite numbers; name it to see the row that has none: "
        "--label COLUMN",
        REGRESSION,
    ),
    tasks.CLASSES: (
        "a column of lists of few names (JSON, Parquet); name it to see the row that has none: "
        "--label COLUMN; for columns of 0 and 1 write the entry, with label: [COLUMN, COLUMN]",
        MULTI_LABEL,
    ),
    tasks.TAGS: (
        "a column of lists of words beside one of lists of as many tags (O, B-TYPE, I-TYPE), in "
        "JSON or Parquet; name both to see the row that differs: --text COLUMN --label COLUMN",
        TAGGING,
    ),
}


def _named(
    kind: str, task: str, columns: dict[str, Column], label: str, text: list[str]
) -> Iterator[_Candidate]:
    """The column that the user names, if some of its rows could be labels of the task."""
    column = columns[label]
    if kind == tasks.TAGS:
        if column.lengths and len(text) == 1 and text != [label]:
            yield _Candidate(label, task, text[0])
    elif column.numbers if kind == tasks.NUMBER else column.lengths:
        yield _Candidate(label, task)


# Classes of lists ---------------------------------------------------------------------------------


def classes_of_items(kind: str, items: list[str], where: str) -> list[str]:
    """The classes of an entry whose labels are lists.

    Args:
        kind: CLASSES or TAGS of `rankwise.core.tasks`.
        items: Every name or tag of the files, each once.
        where: The column, for messages.

    Returns:
        Names by letters; of tags `O`, then `B-TYPE` and `I-TYPE` of each type.

    Raises:
        ValueError: A tag is none.
    """
    if len(items) > MAX_CLASSES:
        raise ValueError(f"{where}: got {len(items):,} names, allowed: at most {MAX_CLASSES}")
    if kind == tasks.CLASSES:
        return sorted(items)
    wrong = [item for item in items if not _is_tag(item)]
    if wrong:
        raise ValueError(f"{where}: got the tag {names_of(wrong[:1])}, allowed: O, B-TYPE, I-TYPE")
    types = sorted({item[2:] for item in items if item != "O"})
    return ["O", *(f"{part}{name}" for name in types for part in TAG_PARTS)]


# Labels as people read them -----------------------------------------------------------------------


def _number_text(record: Record, entry: dict, path: Path) -> str:
    return f"{answers.number(record, entry, path):g}"


def _classes_text(record: Record, entry: dict, path: Path) -> str:
    signs = zip(entry["classes"], answers.classes(record, entry, path), strict=True)
    return ", ".join(name for name, sign in signs if sign) or "no class"


def _tags_text(record: Record, entry: dict, path: Path) -> str:
    words = answers.words(record, entry, path)
    indices = answers.tags(record, entry, path, len(words))
    return " ".join(entry["classes"][index] for index in indices)


# Kind of labels -> the label of a row as people read it.
LABEL_TEXTS = {
    tasks.NUMBER: _number_text,
    tasks.CLASSES: _classes_text,
    tasks.TAGS: _tags_text,
}
