"""Zip archives of CSV files, one row a row: MMLU has a file for each subject."""

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from rankwise.data.reading.bombs import check_unpacked
from rankwise.data.reading.lines import damaged
from rankwise.data.reading.tables import table_rows
from rankwise.data.record import Record, label_columns, text_columns

MEMBER = "member"  # the column that the first group of the pattern gives
CSV_KEYS = ("columns", "quotes")


def zipped_rows(path: Path, dataset: dict, split: str) -> Iterator[Record | ValueError]:
    """The rows of the CSV files whose whole name in an archive matches, in the order of the names.

    Args:
        path: A zip file.
        dataset: The entry. `member` of the split is the pattern of the names; its first group, if
            it has one, is the column `member` of the rows. `columns` and `quotes` are those of CSV.
        split: The name of the split.

    Yields:
        A record of texts, or the error of a row after which the next one can be read.

    Raises:
        ValueError: The pattern matches no file, the archive is damaged, or a file has other
            columns than the entry needs.
    """
    pattern = re.compile(dataset["splits"][split][MEMBER])
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if pattern.fullmatch(name))
            check_unpacked(path, sum(archive.getinfo(name).file_size for name in names))
            contents = [archive.read(name) for name in names]
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(damaged(path, "zip archive", error)) from None
    if not names:
        raise ValueError(
            f"{path}: no file's name matches {pattern.pattern!r} (splits.{split}.member); "
            f"list the names: unzip -l {path.name}"
        )
    for name, content in zip(names, contents, strict=True):
        cells = {MEMBER: pattern.fullmatch(name)[1]} if pattern.groups else {}
        yield from _rows(content, cells, dataset, path, name)


def _rows(
    content: bytes, cells: dict[str, str], dataset: dict, path: Path, name: str
) -> Iterator[Record | ValueError]:
    """The rows of one CSV file, each with further cells."""
    needed = [*text_columns(dataset), *label_columns(dataset)]
    in_file = [column for column in needed if column not in cells]
    how = {"text": in_file, **{key: dataset[key] for key in CSV_KEYS if key in dataset}}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "rows.csv")  # the reader of tables reads files
        copy.write_bytes(content)
        try:
            for row in table_rows(copy, "csv", how):
                if isinstance(row, Record):
                    yield Record(f"member {name}: {row.where}", {**row.cells, **cells})
                else:
                    yield _of_member(row, copy, path, name)
        except ValueError as error:
            raise _of_member(error, copy, path, name) from None


def _of_member(error: ValueError, copy: Path, path: Path, name: str) -> ValueError:
    """An error with the archive and the member in place of the copy."""
    return ValueError(str(error).replace(f"{copy}:", f"{path}: member {name}:"))
