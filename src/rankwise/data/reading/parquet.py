"""Parquet files, through Hugging Face `datasets`: the file has its types, so none is guessed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rankwise.data.reading.lines import damaged
from rankwise.data.record import Record, check_columns


def parquet_rows(path: Path, dataset: dict) -> Iterator[Record]:
    """The rows of a Parquet file, in their order; the first one is "row 1".

    Args:
        path: The file.
        dataset: The entry.

    Yields:
        A record of Python values: a null is None.

    Raises:
        ValueError: The file is not Parquet, or lacks a column of the entry.
    """
    import pyarrow  # noqa: PLC0415 - the only format that needs it and `datasets`
    import pyarrow.parquet  # noqa: PLC0415

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns, row_count = file.schema_arrow.names, file.metadata.num_rows
        check_columns(path, columns, dataset)
        if row_count:  # `datasets` cannot read a file without rows
            yield from _stream(path)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(damaged(path, "Parquet file", error)) from None


def _stream(path: Path) -> Iterator[Record]:
    """Each row of a file that has some."""
    from datasets import load_dataset  # noqa: PLC0415 - takes a second to load

    with tempfile.TemporaryDirectory() as cache:
        # A stream writes no copy of the data; the cache is named so that none is made in the home.
        rows = load_dataset(
            "parquet", data_files=str(path), split="train", streaming=True, cache_dir=cache
        )
        for number, cells in enumerate(rows, start=1):
            yield Record(f"row {number}", cells)
