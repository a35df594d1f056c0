"""Text cells of our CSV files that no spreadsheet takes for a formula.

A cell that begins with =, +, -, @, a tab or a carriage return is run as a formula by spreadsheets,
which may send a table's content elsewhere. Such a text gets a quote mark in front, which
spreadsheets hide; a text that begins with a quote mark gets one more, so that `plain` is exact.
Numbers stay numbers. Source: OWASP, CSV injection.

Standard library only.
"""

import csv
from pathlib import Path

FORMULA = ("=", "+", "-", "@", "\t", "\r")
MARK = "'"
_MARKED = tuple(MARK + first for first in (*FORMULA, MARK))


def safe(cell: object) -> object:
    """A cell as it is written: a text that looks like a formula is marked; all else stays."""
    if isinstance(cell, str) and cell.startswith((*FORMULA, MARK)) and not _is_number(cell):
        return MARK + cell
    return cell


def plain(cell: object) -> object:
    """A cell as it was before `safe`; what is no text, such as True, stays."""
    is_marked = isinstance(cell, str) and cell.startswith(_MARKED)
    return cell[1:] if is_marked else cell


def read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the rows of a CSV file of ours."""
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = [plain(column) for column in reader.fieldnames or []]
        rows = [[plain(cell or "") for cell in row.values()] for row in reader]
    return columns, [dict(zip(columns, row, strict=True)) for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()  # Python reads a number behind a line end, too
