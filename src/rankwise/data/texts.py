"""The text of a row: one column, or several joined by spaces.

Only a text is one. A number, a list or a null would be trained on as the words that Python prints
for it, so it is refused.
"""

import math
import unicodedata
from pathlib import Path

from rankwise.core import tasks
from rankwise.data import answers
from rankwise.data.record import Record, names_of, problem, shown, text_columns

RUNNING_TEXT = "language_modelling"
# Letters and symbols drawn as nothing: Hangul fillers, and the braille pattern without dots.
BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def text(record: Record, dataset: dict, path: Path) -> str | None:
    """The text of a row.

    Args:
        record: A row of the file.
        dataset: A dataset entry. `missing_text: drop` leaves out rows without a text.
        path: The file, for messages.

    Returns:
        The text as it is written. None if the row, or one of the text's columns, has none, and the
        entry drops such rows.

    Raises:
        ValueError: A column is not in the row, has no text and the entry does not drop it, or has
            a value that is no text.
    """
    if _has_tags(dataset):
        return " ".join(answers.words(record, dataset, path))
    names = text_columns(dataset)
    # The blank lines of running text are part of it.
    blank_is_text = dataset.get("task") == RUNNING_TEXT and len(names) == 1
    parts = [_part(record, name, path, blank_is_text) for name in names]
    missing = [name for name, part in zip(names, parts, strict=True) if part is None]
    if not missing:
        return " ".join(parts)
    if dataset.get("missing_text") == "drop":
        return None
    value = record.cells[missing[0]]
    what = (
        f"column {missing[0]!r} is {'null' if value is None else shown(value)}, allowed: a text; "
        "correct the row, or leave such rows out with `missing_text: drop`"
    )
    raise problem(path, record.where, what)


def target(record: Record, dataset: dict, path: Path) -> str:
    """The text that a model is to write of a row, its label.

    Raises:
        ValueError: The row has no such column, or no text in it.
    """
    name = dataset["label"]
    found = _part(record, name, path, blank_is_text=False)
    if found is None:
        value = record.cells[name]
        got = "null" if value is None else shown(value)
        what = f"column {name!r} is {got}, allowed: a text; correct the row, or remove it"
        raise problem(path, record.where, what)
    return found


def _has_tags(dataset: dict) -> bool:
    """Whether the text is a list of words, each of which has a tag."""
    return "task" in dataset and tasks.facts(dataset["task"]).labels == tasks.TAGS


def _part(record: Record, name: str, path: Path, blank_is_text: bool) -> str | None:
    """The text of one column; None if it has none.

    Raises:
        ValueError: The row lacks the column, or its value is no text.
    """
    if name not in record.cells:
        allowed = names_of(record.cells) or "nothing: the row is empty"
        raise problem(path, record.where, f"no column {name!r}, allowed: {allowed}")
    value = record.cells[name]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        what = f"column {name!r} is {shown(value)} ({type(value).__name__}), allowed: a text"
        raise problem(path, record.where, what)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(value[error.start]):04X}"
        what = f"column {name!r} has {code}, half of a surrogate pair, allowed: whole characters"
        raise problem(path, record.where, what) from None
    return value if blank_is_text or any(map(_is_visible, value)) else None


def _is_visible(character: str) -> bool:
    """Whether a reader sees a character: no space, control or format character, and no filler."""
    is_blank = character.isspace() or character in BLANK_LETTERS
    return not is_blank and unicodedata.category(character) not in ("Cc", "Cf")
