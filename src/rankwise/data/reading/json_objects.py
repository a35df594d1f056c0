"""JSON Lines, and files that are one JSON array of objects (RFC 8259).

Python's `json` takes the last of two equal keys, and `NaN`, which is no JSON; both are refused.
"""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from rankwise.data.reading.lines import is_blank, without_blank_end
from rankwise.data.record import Record, problem, shown

_SPACE = re.compile(r"[ \t\r\n]*")
_ALLOWED = "one JSON object a line, or one array of objects"


def json_rows(path: Path) -> Iterator[Record | ValueError]:
    """The objects of a file, in their order.

    Args:
        path: JSON Lines, or one array.

    Yields:
        A record, or the error of a row after which the next one can be read.

    Raises:
        ValueError: An array is broken, so that nobody can say where the next object begins; or an
            object goes over several lines.
    """
    lines = without_blank_end(path)
    first = next(lines, None)
    if first is None:
        return
    every = itertools.chain([first], lines)
    if first[1].strip() == "{":
        raise problem(path, "row 1", f"one object over several lines, allowed: {_ALLOWED}")
    if first[1].lstrip(" \t\r\n").startswith("["):
        yield from _array("".join(line for _, line in every), path)
        return
    for number, line in every:
        yield _row(line, path, f"row {number}")


def json_columns(path: Path) -> list[str]:
    """The keys of a file's first object; empty if it has none.

    Args:
        path: JSON Lines, or one array.

    Raises:
        ValueError: The file's first row is no object.
    """
    row = next(json_rows(path), None)
    if isinstance(row, ValueError):
        raise row
    return list(row.cells) if row else []


def _row(line: str, path: Path, where: str) -> Record | ValueError:
    if is_blank(line):
        return problem(path, where, "a blank line, allowed: a JSON object; remove the line")
    try:
        return _record(_DECODER.decode(line), path, where)
    except (ValueError, RecursionError) as error:
        return problem(path, where, _not_json(error))


def _array(text: str, path: Path) -> Iterator[Record | ValueError]:
    """The objects of an array, which is read as a whole."""
    line = counted = 0  # line ends before position `counted`
    position = _after_space(text, text.index("[") + 1)
    is_first = True
    while text[position : position + 1] != "]" or not is_first:
        line += text.count("\n", counted, position)
        counted = position
        where = f"row {line + 1}"
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise problem(path, where, _not_json(error)) from None
        yield _record(value, path, where)
        position = _after_space(text, position)
        is_first = False
        if text[position : position + 1] == "]":
            break
        if text[position : position + 1] != ",":
            where = f"row {text.count(chr(10), 0, position) + 1}"
            got = shown(text[position : position + 20]) if position < len(text) else "its end"
            raise problem(path, where, f"the array goes on with {got}, allowed: ',' or ']'")
        position = _after_space(text, position + 1)
    rest = _after_space(text, position + 1)
    if rest < len(text):
        where = f"row {text.count(chr(10), 0, rest) + 1}"
        got = shown(text[rest : rest + 20])
        raise problem(path, where, f"{got} follows the array, allowed: {_ALLOWED}")


def _after_space(text: str, position: int) -> int:
    return _SPACE.match(text, position).end()


def _record(value: object, path: Path, where: str) -> Record | ValueError:
    if isinstance(value, dict):
        return Record(where, value)
    return problem(path, where, f"got {shown(value)}, allowed: {_ALLOWED}")


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        what = f"not JSON: {error.msg}, at column {error.colno}"
    elif isinstance(error, RecursionError):
        what = "lists or objects are nested too deeply"
    else:
        what = str(error)
    return f"{what}, allowed: {_ALLOWED}"


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} stands twice in an object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the number {name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
