"""Prepared splits as Arrow files, by Hugging Face `datasets`: written whole, read memory-mapped.

The bytes follow from the rows alone. The file's metadata has the columns' types, and no time, name
or random fingerprint, so a dataset that is prepared again has the same SHA-256.
"""

from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from rankwise.core import provenance
from rankwise.core.files import durable_write
from rankwise.core.input_files import SPLIT_ENDING

BATCH_ROWS = 10_000  # rows of one record batch; a part of the file's layout
COLUMNS = {"text": Value("string"), "words": List(Value("string"))}


def write_split(folder: Path, split: str, rows: list[dict]) -> dict:
    """Write the rows of one split as `{split}.arrow`.

    Args:
        folder: Made if it does not exist.
        split: The name of the split.
        rows: All with `text`, and perhaps `label` (an integer, a number, a text, or a list of
            integers) and `words`.

    Returns:
        `rows`, how many they are, and the file's `sha256`.
    """
    columns = {"text": COLUMNS["text"], "label": Value("int64")}
    if rows:
        columns = {name: COLUMNS.get(name) or column_type(rows[0][name]) for name in rows[0]}
    path = folder / f"{split}{SPLIT_ENDING}"
    starts = range(0, len(rows), BATCH_ROWS)
    batches = (as_columns(rows[start : start + BATCH_ROWS]) for start in starts)
    write_columns(path, Features(columns), batches)
    return {"rows": len(rows), "sha256": provenance.file_sha256(path)}


def write_columns(path: Path, features: Features, batches: Iterable[dict[str, list]]) -> int:
    """Write an Arrow file whole or not at all.

    Args:
        path: The file; its folder is made if it does not exist.
        features: The columns and their types.
        batches: Column -> values, of one record batch each.

    Returns:
        The number of rows.
    """
    with (
        durable_write(path) as part,
        ArrowWriter(path=str(part), features=features, writer_batch_size=BATCH_ROWS) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
        writer.finalize()
    return len(writer)


def column_type(value: object) -> Value | List:
    """The type of a column of texts, of numbers like this one, or of lists of integers."""
    if isinstance(value, list):
        return List(Value("int64"))
    if isinstance(value, str):
        return Value("string")
    return Value("float64" if isinstance(value, float) else "int64")


def as_columns(rows: list[dict]) -> dict[str, list]:
    """Rows as columns: name -> values. There is at least one row, and all have the same columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def open_table(path: Path) -> Dataset:
    """An Arrow file as a memory-mapped table. Nothing is copied, and no cache is written."""
    return Dataset.from_file(str(path))


def read_rows(path: Path) -> list[dict]:
    """The rows of a prepared split."""
    return open_table(path).to_list()
