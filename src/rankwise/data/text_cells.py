"""One cell of a row as a text. Only a text is one.

A number, a list or a null would be trained on as the words that Python prints for it.
"""

import math
import unicodedata
from pathlib import Path

from rankwise.data.record import Record, names_of, problem, shown

# Letters and symbols drawn as nothing: Hangul fillers, and the braille pattern without dots.
BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def required(record: Record, name: str, path: Path) -> str:
    """The text of one column that must have one.

    Raises:
        ValueError: The row has no such column, or no text in it.
    """
    found = text_cell(record, name, path)
    if found is None:
        value = record.cells[name]
        got = "null" if value is None else shown(value)
        what = f"column {name!r} is {got}, allowed: a text; correct the row, or remove it"
        raise problem(path, record.where, what)
    return found


def text_cell(record: Record, name: str, path: Path, blank_is_text: bool = False) -> str | None:
    """The text of one column; None if it has none.

    Args:
        record: A row of the file.
        name: The column.
        path: The file, for messages.
        blank_is_text: Whether a blank text is one.

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
