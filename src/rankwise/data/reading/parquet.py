"""Parquet files, through Hugging Face `datasets`: the file has its types, so none is guessed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rankwise.data.reading.lines import damaged
from rankwise.data.record import Record, check_columns, label_columns

BATCH_ROWS = 1000


def parquet_rows(path: Path, dataset: dict) -> Iterator[Record]:
    """The rows of a Parquet file, in their order; the first one is "row 1".

    Args:
        path: The file.
        dataset: The entry.

    Yields:
        A record of Python values: a null is None. A label of the type ClassLabel of `datasets`,
        a number with a name, is its name, unless the entry has `labels: numbers`.

    Raises:
        ValueError: The file is not Parquet, or lacks a column of the entry.
    """
    import pyarrow  # noqa: PLC0415 - the only format that needs it and `datasets`
    import pyarrow.parquet  # noqa: PLC0415

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns, row_count = file.schema_arrow.names, file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(damaged(path, "Parquet file", error)) from None
    check_columns(path, columns, dataset)
    if row_count:  # `datasets` cannot read a file without rows
        try:
            yield from _stream(path, dataset)
        # A ValueError is of text that is no UTF-8, or of broken metadata of `datasets`.
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ValueError(damaged(path, "Parquet file", error)) from None


def _stream(path: Path, dataset: dict) -> Iterator[Record]:
    """Each row of a file that has some.

    The file is read through a link, because `datasets` takes its path for a pattern: `a[1].parquet`
    would read the file `a1.parquet`. `load_dataset` does so too, and reports each call to a server.
    """
    from datasets import IterableDataset  # noqa: PLC0415 - takes a second to load

    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "rows.parquet"
        link.symlink_to(path.resolve())
        # A stream writes no copy of the data; its lock file goes into the named cache.
        rows = IterableDataset.from_parquet(str(link), cache_dir=folder)
        names_by_column = _class_names(rows.features, dataset)
        number = 0
        # A batch is column -> values. `datasets` takes far longer to yield rows one at a time.
        for batch in rows.iter(batch_size=BATCH_ROWS):
            for values in zip(*batch.values(), strict=True):
                number += 1
                cells = dict(zip(batch, values, strict=True))
                for column, names in names_by_column.items():
                    cells[column] = _named(cells[column], names)
                yield Record(f"row {number}", cells)


def _class_names(features: dict | None, dataset: dict) -> dict[str, list[str]]:
    """Column of labels -> names of its classes, if the file has them and the entry wants names."""
    if dataset.get("labels") == "numbers":
        return {}
    found = {}
    for column in label_columns(dataset):
        feature = (features or {}).get(column)
        feature = getattr(feature, "feature", feature)  # of a list: that of its items
        if getattr(feature, "names", None):
            found[column] = list(feature.names)
    return found


def _named(label: int | list | None, names: list[str]) -> str | int | list | None:
    """The name of a label, or of each in a list.

    -1 and null, which mean that there is no label, stay.
    """
    if isinstance(label, list):
        return [_named(one, names) for one in label]
    return label if label is None or label < 0 else names[label]
