"""Errors that several packages raise and catch."""

import difflib
from collections.abc import Iterable


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
        allowed: The allowed values, or a description of them.
    """

    def __init__(self, file: str, key: str, got: object, allowed: str | Iterable[str]):
        hint = ""
        if not isinstance(allowed, str):
            names = sorted(map(str, allowed))
            nearest = difflib.get_close_matches(str(got), names, n=1)
            hint = f" (nearest: {nearest[0]!r})" if nearest else ""
            allowed = ", ".join(names) or "nothing"
        super().__init__(f"{file}: {key}: got {got!r}, allowed: {allowed}{hint}")
