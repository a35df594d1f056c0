"""Errors that several packages raise and catch."""

import difflib
from collections.abc import Iterable

SHOWN_WHOLE = 30  # names; longer lists are cut to those most like what was got
MOST_LIKE = 8
SHOWN_CHARACTERS = 200  # of a value, or of a key's path; longer ones are cut
ALLOWED_CHARACTERS = 2000  # the same of what is allowed, which may quote names of the file


class Unsupported(ValueError):
    """A method cannot train a model; the message is the reason."""


class BrokenModule(ValueError):
    """The file of a method or optimizer cannot be imported; the message says which and why."""


class ConfigError(ValueError):
    """Something is wrong with a configuration: `file: key: got X, allowed: Y`, in one sentence.

    Args:
        file: The file as the user knows it.
        key: Path of the key in the file, joined by dots.
        got: The wrong value.
        allowed: The allowed values, or a description of them. Of more than 30 values, the
            message shows the 8 that are most like `got`.

    The message is one line: a long value is cut, and control characters are escaped, which could
    move a terminal's cursor.
    """

    def __init__(self, file: str, key: str, got: object, allowed: str | Iterable[str]):
        hint = ""
        if not isinstance(allowed, str):
            names = sorted(map(str, allowed))
            text = got[:SHOWN_CHARACTERS] if isinstance(got, str) else shown(got)
            nearest = _nearest(text, names)
            hint = f" (nearest: {nearest!r})" if nearest else ""
            allowed = _listed(names, text)
        place = f"{file}: {_cut(_printable(key), SHOWN_CHARACTERS)}"
        allowed = _cut(_printable(allowed), ALLOWED_CHARACTERS)
        super().__init__(f"{place}: got {shown(got)}, allowed: {allowed}{hint}")


def shown(value: object) -> str:
    """A value as messages show it: as Python writes it, in one line, cut if it is long."""
    try:
        return _cut(_printable(repr(value)), SHOWN_CHARACTERS)
    except (ValueError, RecursionError):  # an integer of over 4,300 digits; a list in itself
        return f"{type(value).__name__} of too many parts to show"


def _printable(text: str) -> str:
    """A text with its control characters, and others that no terminal shows, escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def _nearest(got: str, names: list[str]) -> str | None:
    """The name most like `got`, or None; of equally like names, one that begins as `got` does."""

    def likeness(name: str) -> tuple[float, int]:
        ratio = difflib.SequenceMatcher(None, name, got).ratio()
        first_letters = [name.startswith(got[:count]) for count in range(1, len(got) + 1)]
        return ratio, sum(first_letters)

    return max(difflib.get_close_matches(got, names), key=likeness, default=None)


def _listed(names: list[str], got: str) -> str:
    """Sorted names in one line; of a long list, those most like what was got."""
    if len(names) <= SHOWN_WHOLE:
        return ", ".join(names) or "nothing"
    shown = difflib.get_close_matches(got, names, n=MOST_LIKE, cutoff=0.0)
    return f"{', '.join(sorted(shown))} and {len(names) - MOST_LIKE} more"
