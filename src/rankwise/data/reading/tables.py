"""CSV and TSV files: each row has a cell for each column, and each column a name of its own."""

from collections.abc import Iterator
from pathlib import Path

from rankwise.data.reading.cells import Dialect, Row, read_rows
from rankwise.data.record import Record, check_columns, names_of, problem

SEPARATORS = {"csv": ",", "tsv": "\t"}


def table_rows(path: Path, file_format: str, dataset: dict) -> Iterator[Record | ValueError]:
    """The rows of a CSV or TSV file, in their order.

    Args:
        path: The file.
        file_format: csv or tsv.
        dataset: The entry. `columns` names the columns; without it, the first line does. `quotes`
            says whether quotes hold cells together.

    Yields:
        A record of texts, or the error of a row after which the next one can be read.

    Raises:
        ValueError: The header does not fit the entry, or quotes leave open where a row ends.
    """
    dialect = _dialect(file_format, dataset)
    rows = read_rows(path, dialect)
    columns = dataset.get("columns") or _header(path, rows)
    check_columns(path, columns, dataset)
    for row in rows:
        where = f"row {row.number}"
        if isinstance(row.cells, ValueError):
            yield row.cells
        elif len(row.cells) != len(columns):
            yield problem(path, where, _wrong_count(row.cells, columns, dialect))
        elif not dialect.is_sure and (count := _rows_inside(row.text, dialect, len(columns))):
            what = (
                f"a quoted cell joins {count} lines, each of which could be a row of its own; "
                "correct the quotes, or set `quotes: true` in the entry if they hold one text"
            )
            yield problem(path, where, what)
        else:
            yield Record(where, dict(zip(columns, row.cells, strict=True)))


def table_columns(path: Path, file_format: str, dataset: dict) -> list[str]:
    """The columns of a CSV or TSV file, from its entry or from its first line.

    Args:
        path: The file.
        file_format: csv or tsv.
        dataset: The entry.

    Raises:
        ValueError: The first line names no columns.
    """
    return dataset.get("columns") or _header(path, read_rows(path, _dialect(file_format, dataset)))


def _dialect(file_format: str, dataset: dict) -> Dialect:
    """How an entry's tables are written; without a word, CSV has quoted cells and TSV has none."""
    quotes = dataset.get("quotes")
    has_quoted_cells = file_format == "csv" if quotes is None else quotes
    return Dialect(SEPARATORS[file_format], has_quoted_cells, is_sure=quotes is not None)


def _header(path: Path, rows: Iterator[Row]) -> list[str]:
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


def _wrong_count(cells: list[str], columns: list[str], dialect: Dialect) -> str:
    """The sentence on a row with too few or too many cells."""
    what = f"number of cells: got {len(cells)}, allowed: {len(columns)} ({names_of(columns)})"
    if dialect.has_quoted_cells:
        return f"{what}; a cell with a separator or a line end in it needs quotes"
    if not dialect.is_sure and any(cell.startswith('"') for cell in cells):
        return f"{what}; if quotes hold cells together in this file, set `quotes: true`"
    return what


def _rows_inside(text: str, dialect: Dialect, column_count: int) -> int:
    """The number of lines of a quoted row, if each would be a row were its quotes letters; else 0.

    Two stray quotes hold the rows between them together, and nothing else tells such a row from one
    with a long text. The second one may stand behind the last row of a file.
    """
    lines = text.removesuffix("\n").removesuffix('\n"').split("\n")
    separators = column_count - 1
    if len(lines) > 1 and all(line.count(dialect.separator) == separators for line in lines):
        return len(lines)
    return 0
