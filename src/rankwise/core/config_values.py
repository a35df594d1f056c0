"""What no value of a configuration may be, whatever its key; and integers that are written 3.0.

The schemas say what each key allows. Under some keys (`options`, `architecture`) everything is
allowed, and there, too, a value must be one that JSON can hold, so that a request has it.
"""

import copy
import math
import unicodedata
from collections.abc import Iterator

from rankwise.core.errors import ConfigError

LARGEST_INTEGER = 2**63 - 1  # of torch, and of the libraries that read JSON
MOST_CHARACTERS = 10_000  # of a text
KEEPS = "\n\r\t"  # control characters that a text may have
JSON_SCALARS = (str, bool, int, float, type(None))
IN_QUOTES = "a text (in quotes, since YAML reads null, true, 8 and 2026-01-31 as other things)"


def check_values(value: object, file: str) -> None:
    """Refuse the first value that no key allows.

    Args:
        value: Read from a file, or built by Python.
        file: How messages call the file.

    Raises:
        ConfigError: A number is not finite or too large; a text is too long or has control
            characters; a value is of a type that JSON lacks, such as a date.
    """
    for path, leaf in _leaves(value, ()):
        allowed = _allowed_instead(leaf)
        if allowed:
            raise ConfigError(file, ".".join(path) or "top level", leaf, allowed)


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every scalar and every key, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, (*path, str(number)))
    else:
        yield path, value


def _allowed_instead(value: object) -> str | None:
    """The allowed values, in words, in place of a wrong scalar; None if it is right."""
    if not isinstance(value, JSON_SCALARS):
        return IN_QUOTES
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is finite"
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return f"an integer of at most {LARGEST_INTEGER}"
    if isinstance(value, str):
        if len(value) > MOST_CHARACTERS:
            return f"a text of at most {MOST_CHARACTERS:,} characters"
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in KEEPS for c in value):
            return "a text without control characters"
    return None


def whole(value: object, types: str | list[str]) -> object:
    """A value as its schema means it: 3.0 is 3 where an integer, and no other number, is meant.

    Args:
        value: Of the configuration.
        types: The `type` of its schema.
    """
    names = [types] if isinstance(types, str) else types
    if isinstance(value, float) and "integer" in names and "number" not in names:
        return int(value)  # the schema has refused 2.5
    return copy.deepcopy(value)
