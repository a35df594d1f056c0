"""CSV and TSV files, by the strict rules of RFC 4180 (Shafranovich 2005).

A quoted cell begins and ends with a quote, and doubles those inside; other cells have no quote. So
a line end is outside of quotes exactly if the quotes before it are even in number, and one quote
too many or too few is always found. Two too many can join lines, so a row is refused if each of
its lines could be a row.

Python's `csv` takes a quote inside of an unquoted cell for a letter, so a lost quote can swallow
rows; its limit on the length of cells is one for all threads.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.data.reading.lines import is_blank, without_blank_end
from rankwise.data.record import Record, check_columns, problem, shown

SEPARATORS = {"csv": ",", "tsv": "\t"}
_QUOTED = r'"(?P<quoted>[^"]*+(?:""[^"]*+)*+)"'


class _Dialect(NamedTuple):
    """How the cells of a line are written.

    Attributes:
        separator: Stands between cells.
        quotes: Whether quotes hold a cell together. None: they do not, but a cell that could be
            meant so is refused.
    """

    separator: str
    quotes: bool | None


class _Row(NamedTuple):
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


def table_rows(path: Path, file_format: str, dataset: dict) -> Iterator[Record | ValueError]:
    """The rows of a CSV or TSV file, in their order.

    Args:
        path: The file.
        file_format: csv or tsv.
        dataset: The entry. `columns` names the columns; without it, the first line does. `quotes`
            says whether quotes hold cells together (by default in CSV only).

    Yields:
        A record of texts, or the error of a row after which the next one can be read.

    Raises:
        ValueError: The header does not fit the entry, or quotes leave open where a row ends.
    """
    rows = _rows(path, _dialect(file_format, dataset))
    columns = dataset.get("columns") or _header(path, rows)
    check_columns(path, columns, dataset)
    separator, is_sure = SEPARATORS[file_format], dataset.get("quotes")
    for row in rows:
        where = f"row {row.number}"
        if isinstance(row.cells, ValueError):
            yield row.cells
        elif len(row.cells) != len(columns):
            yield problem(path, where, _wrong_count(row.cells, columns, file_format, dataset))
        elif not is_sure and _could_be_rows(row.text, separator, len(columns)):
            yield problem(path, where, _two_readings(row.text))
        else:
            yield Record(where, dict(zip(columns, row.cells, strict=True)))


def table_columns(path: Path, file_format: str, dataset: dict) -> list[str]:
    """The columns of a CSV or TSV file: those that its entry gives, or those of its first line.

    Args:
        path: The file.
        file_format: csv or tsv.
        dataset: The entry.

    Raises:
        ValueError: The first line names no columns.
    """
    return dataset.get("columns") or _header(path, _rows(path, _dialect(file_format, dataset)))


def _dialect(file_format: str, dataset: dict) -> _Dialect:
    quotes = dataset.get("quotes")
    if quotes is None and file_format == "csv":
        quotes = True
    return _Dialect(SEPARATORS[file_format], quotes)


def _header(path: Path, rows: Iterator[_Row]) -> list[str]:
    """The columns that the first row names."""
    row = next(rows, None)
    if row is None:
        raise ValueError(f"{path}: is empty, allowed: a header and rows")
    cells = row.cells
    if isinstance(cells, ValueError):
        raise cells
    for index, name in enumerate(cells):
        if not name.strip():
            what = f"column {index + 1} has no name (pandas: to_csv(index=False))"
        elif name in cells[:index]:
            what = f"two columns are named {name!r}"
        else:
            continue
        allowed = "a header with a name of its own for each column"
        what = f"{what}, allowed: {allowed}; for a file without a header, set `columns`"
        raise problem(path, f"row {row.number}", what)
    return cells


def _wrong_count(cells: list[str], columns: list[str], file_format: str, dataset: dict) -> str:
    """The sentence on a row with too few or too many cells."""
    what = f"number of cells: got {len(cells)}, allowed: {len(columns)} ({', '.join(columns)})"
    dialect = _dialect(file_format, dataset)
    if dialect.quotes:
        return f"{what}; a cell with a separator or a line end in it needs quotes"
    if any(cell.startswith('"') for cell in cells):
        return f"{what}; if quotes hold cells together in this file, set `quotes: true`"
    return what


def _could_be_rows(text: str, separator: str, columns: int) -> bool:
    """Whether each line of a quoted row would be a row of its own if its quotes were letters.

    Two stray quotes hold the rows between them together, and nothing else tells such a row from one
    with a long text.
    """
    lines = text.removesuffix("\n").split("\n")
    return len(lines) > 1 and all(line.count(separator) == columns - 1 for line in lines)


def _two_readings(text: str) -> str:
    """The sentence on a row whose lines could be rows."""
    count = text.removesuffix("\n").count("\n") + 1
    return (
        f"a quoted cell joins {count} lines, each of which could be a row of its own; correct the "
        "quotes, or set `quotes: true` in the entry if every such cell is one text"
    )


def _rows(path: Path, dialect: _Dialect) -> Iterator[_Row]:
    """Each row of the file, the header included."""
    lines: list[str] = []  # of the row that is being read
    first = quotes = 0
    for number, line in without_blank_end(path):
        if not lines:
            first = number
            if is_blank(line):
                what = "a blank line, allowed: a row; remove the line"
                yield _Row(number, line, problem(path, f"row {number}", what))
                continue
        lines.append(line)
        quotes += line.count('"')
        if dialect.quotes and quotes % 2:
            continue  # the row goes on inside of quotes
        yield _Row(first, "".join(lines), _parsed(path, first, lines, dialect))
        lines, quotes = [], 0
    if lines:
        _parsed(path, first, lines, dialect)
        raise AssertionError("an odd number of quotes was parsed")


def _parsed(path: Path, first: int, lines: list[str], dialect: _Dialect) -> list[str] | ValueError:
    """The cells of one row.

    Args:
        path: The file.
        first: Number of the row's first line.
        lines: The row's lines.
        dialect: How cells are written.

    Returns:
        The cells, or what is wrong with them if the row certainly ends where `lines` do.

    Raises:
        ValueError: A quote is wrong, and nobody can say where the row ends; or quotes could mean
            two things.
    """
    text = "".join(lines).removesuffix("\n").removesuffix("\r")
    try:
        if dialect.quotes:
            return list(_quoted_cells(text, dialect.separator))
        return _plain_cells(path, first, text, dialect)
    except _BrokenCell as broken:
        line = first + text.count("\n", 0, broken.position)
        error = problem(path, f"row {line}", broken.what)
        if len(lines) > 1 or (text.count('"') % 2 and dialect.quotes):
            raise error from None
        return error


def _plain_cells(path: Path, first: int, text: str, dialect: _Dialect) -> list[str]:
    """The cells of a row in which quotes are letters."""
    if "\r" in text:
        raise _BrokenCell(_CARRIAGE_RETURN, text.index("\r"))
    cells = text.split(dialect.separator)
    if dialect.quotes is None and '"' in text:
        for cell in cells:
            if re.fullmatch(_QUOTED, cell):
                what = (
                    f"cell {shown(cell)} begins and ends with a quote; set `quotes: true` in the "
                    "entry if these quotes are no part of the text, or `quotes: false` if they are"
                )
                raise problem(path, f"row {first}", what)
    return cells


def _quoted_cells(text: str, separator: str) -> Iterator[str]:
    """The cells of a row in which quotes hold cells together."""
    pattern = re.compile(rf'{_QUOTED}|[^"\r\n{separator}]*')
    position = 0
    while True:
        match = pattern.match(text, position)
        quoted, end = match["quoted"], match.end()
        yield match[0] if quoted is None else quoted.replace('""', '"')
        if end == len(text):
            return
        if text[end] != separator:
            raise _BrokenCell(_what_broke(text, position, end, quoted is not None), end)
        position = end + 1


_CARRIAGE_RETURN = (
    "a carriage return that ends no line, allowed: lines that end with a line feed; "
    "convert old line ends: tr '\\r' '\\n'"
)


def _what_broke(text: str, start: int, end: int, is_quoted: bool) -> str:
    """What is wrong at `end` with the cell that begins at `start`."""
    if is_quoted:
        return (
            f"{shown(text[end : end + 10])} follows a closing quote, allowed: a separator or the "
            "end of the line; double the quotes inside of a cell"
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
        "one; put the cell into quotes and double those inside, or set `quotes: false` in the "
        "entry if quotes mean nothing in this file"
    )
