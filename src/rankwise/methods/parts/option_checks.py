"""Check the options of a method in its constructor, as planning checks those of a study."""

import dataclasses
import sys
from pathlib import Path

from rankwise.core import annotations, option_ranges
from rankwise.core.errors import shown
from rankwise.core.paths import PACKAGE


def check_options(method: object) -> None:
    """Check every option of a method, and make integers of whole floats.

    Args:
        method: A dataclass; a method of a class that is none has no options.

    Raises:
        ValueError: A value is not of the option's type, or outside of its range.
    """
    if not dataclasses.is_dataclass(method):
        return
    for field in dataclasses.fields(method):
        kind = annotations.text(field.type)
        if not annotations.is_supported(kind):
            continue  # planning refuses it in a study
        value = _plain(getattr(method, field.name))
        allowed = _allowed(type(method), field, kind, value)
        if allowed:
            name = type(method).__name__
            raise ValueError(f"{name}: {field.name}: got {shown(value)}, allowed: {allowed}")
        object.__setattr__(method, field.name, annotations.converted(kind, value))


def _plain(value: object) -> object:
    """A number of numpy or torch as Python's, so that it is checked like one."""
    is_number = not isinstance(value, bool | int | float) and hasattr(value, "item")
    return value.item() if is_number else value


def _allowed(cls: type, field: dataclasses.Field, kind: str, value: object) -> str | None:
    """The allowed values, in words, in place of a wrong one; None if the value is right."""
    if not annotations.accepts(kind, value):
        return annotations.in_words(kind)
    if field.name == "targets" and not value and field.default != ():
        return f"{annotations.in_words(kind)}, at least one"
    ranges = option_ranges.METHODS if _is_shipped(cls, field.name) else {}
    return option_ranges.violated(ranges, field.name, value)


def _is_shipped(cls: type, name: str) -> bool:
    """Whether the class that has a field is Rankwise's own, not a user's."""
    owner = next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))
    file = getattr(sys.modules.get(owner.__module__), "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(PACKAGE)
