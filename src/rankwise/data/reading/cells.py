"""The rows and cells of a file whose lines are cells between separators.

With quotes, the rules are those of RFC 4180 (Shafranovich 2005): a cell that begins with a quote
ends with one, and doubles those inside, so that it may hold separators and line ends. Where an
entry does not say what quotes mean, other cells have no quote; so one quote too many or too few is
always found.

Python's `csv` is not used: a quote inside of an unquoted cell is a letter to it, so a lost quote
leaves its twin in the text; its limit on the length of cells is one for all threads.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.data.reading.lines import is_blank, without_blank_end
from rankwise.data.record import problem, shown

_INSIDE = r'[^"]*+(?:""[^"]*+)*+'  # of a quoted cell
_QUOTED = rf'"(?P<quoted>{_INSIDE})"'
_CARRIAGE_RETURN = (
    "a carriage return that ends no line, allowed: lines that end with a line feed; "
    "convert old line ends: tr '\\r' '\\n'"
)


class Dialect(NamedTuple):
    """How the cells of a line are written.

    Attributes:
        separator: Stands between cells.
        has_quoted_cells: Whether quotes hold a cell together; if not, they are letters.
        is_sure: Whether the entry says so. If not, quotes that could mean something else are
            refused.
    """

    separator: str
    has_quoted_cells: bool
    is_sure: bool


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        number: Line of the file at which it begins.
        text: Its line or lines.
        cells: Its cells, or what is wrong with them.
    """

    number: int
    text: str
    cells: list[str] | ValueError


class _BrokenCell(Exception):
    """Text that is no cell: what is wrong with it, and its position in the row's text."""

    def __init__(self, what: str, position: int):
        super().__init__(what)
        self.what, self.position = what, position


def read_rows(path: Path, dialect: Dialect) -> Iterator[Row]:
    """Each row of a file, the header included.

    Args:
        path: The file.
        dialect: How cells are written.

    Raises:
        ValueError: A quote is wrong, and nobody can say where its row ends; or a cell could be
            meant in two ways.
    """
    lines: list[str] = []  # of the row that is being read
    first, is_open = 0, False
    for number, line in without_blank_end(path):
        if not lines:
            first = number
            if is_blank(line):
                what = "a blank line, allowed: a row; remove the line"
                yield Row(number, line, problem(path, f"row {number}", what))
                continue
        lines.append(line)
        if dialect.has_quoted_cells:
            is_open = _goes_on(line, dialect.separator, is_open)
        if not is_open:
            yield _row(path, first, lines, dialect)
            lines = []
    if lines:
        yield _row(path, first, lines, dialect)  # an error: the quote that is open has no end


def _goes_on(line: str, separator: str, is_open: bool) -> bool:
    """Whether a quoted cell goes on after a line.

    Args:
        line: With its end.
        separator: Stands between cells.
        is_open: Whether a quoted cell went on before the line.
    """
    if '"' not in line:
        return is_open
    position = 0
    while position >= 0:
        if is_open or line.startswith('"', position):
            start = position if is_open else position + 1
            position = re.compile(_INSIDE).match(line, start).end()
            if position == len(line):
                return True
            is_open = False
        position = line.find(separator, position) + 1 or -1
    return False


def _row(path: Path, first: int, lines: list[str], dialect: Dialect) -> Row:
    """One row from its lines; `first` is the number of the first line.

    Raises:
        ValueError: As for `read_rows`.
    """
    text = "".join(lines)
    content = text.removesuffix("\n").removesuffix("\r")
    try:
        if dialect.has_quoted_cells:
            cells = list(_quoted_cells(content, first, dialect))
        else:
            cells = _plain_cells(path, first, content, dialect)
    except _BrokenCell as broken:
        line = first + content.count("\n", 0, broken.position)
        error = problem(path, f"row {line}", broken.what)
        if len(lines) > 1:
            raise error from None
        return Row(first, text, error)
    return Row(first, text, cells)


def _plain_cells(path: Path, first: int, text: str, dialect: Dialect) -> list[str]:
    """The cells of a row in which quotes are letters."""
    if "\r" in text:
        raise _BrokenCell(_CARRIAGE_RETURN, text.index("\r"))
    cells = text.split(dialect.separator)
    if not dialect.is_sure and '"' in text:
        for cell in cells:
            if re.fullmatch(_QUOTED, cell):
                what = (
                    f"cell {shown(cell)} begins and ends with a quote; set `quotes: true` in the "
                    "entry if these quotes are no part of the text, or `quotes: false` if they are"
                )
                raise problem(path, f"row {first}", what)
    return cells


def _quoted_cells(text: str, first: int, dialect: Dialect) -> Iterator[str]:
    """The cells of a row in which quotes hold cells together; it begins in line `first`."""
    quotes = "" if dialect.is_sure else '"'  # which are not allowed in an unquoted cell
    unquoted = rf'(?:(?!")[^\r\n{dialect.separator}{quotes}]*)?'
    pattern = re.compile(rf"{_QUOTED}|{unquoted}")
    position = 0
    while True:
        match = pattern.match(text, position)
        quoted, end = match["quoted"], match.end()
        yield match[0] if quoted is None else quoted.replace('""', '"')
        if end == len(text):
            return
        if text[end] != dialect.separator:
            opened = None if quoted is None else first + text.count("\n", 0, position)
            raise _BrokenCell(_what_broke(text, position, end, opened), end)
        position = end + 1


def _what_broke(text: str, start: int, end: int, opened: int | None) -> str:
    """The mistake in a cell.

    Args:
        text: The row's text.
        start: Position at which the cell begins.
        end: Position at which it is wrong.
        opened: Line in which its quote opened; None for a cell without quotes.
    """
    if opened is not None:
        return (
            f"{shown(text[end : end + 10])} follows a closing quote (opened in row {opened}), "
            "allowed: a separator or the end of the line; double the quotes inside of a cell"
        )
    if text[end] == "\r":
        return _CARRIAGE_RETURN
    if end == start:
        return (
            f"the quote before {shown(text[end + 1 : end + 21])} is never closed, allowed: a quote "
            "at the end of the cell; double the quotes inside of a cell"
        )
    return (
        f"a quote inside of the cell {shown(text[start : end + 11])}, which does not begin with "
        "one; double it inside of quotes, or set `quotes: true` in the entry if such a quote is a "
        "letter, or `quotes: false` if all quotes are"
    )
