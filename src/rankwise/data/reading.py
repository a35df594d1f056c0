"""Records of a file, each with the place where it stands."""

import csv
import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        where: Its place, such as `row 7`.
        cells: Column -> value, as the format has it.
    """

    where: str
    cells: dict[str, object]


def records(path: Path, dataset: dict, split: str) -> Iterator[Record]:
    """The records of one split's file, in its order."""
    for index, cells in enumerate(_cells(path, dataset, dataset["splits"][split])):
        yield Record(f"row {index + 1}", cells)


def problems(path: Path, dataset: dict, split: str) -> list[str]:
    """Every row of a file that cannot be read, a sentence each."""
    from rankwise.data import texts  # noqa: PLC0415

    found = []
    try:
        for record in records(path, dataset, split):
            try:
                texts.text(record, dataset, path)
            except ValueError as error:
                found.append(str(error))
    except ValueError as error:
        found.append(str(error))
    return found


def _cells(path: Path, dataset: dict, split: dict) -> Iterable[dict]:
    """The records of a file as its format has them: column -> value."""
    source = dataset.get("files") or dataset["hub"]
    file_format = source["format"]
    if file_format == "tar":
        return _tar_members(path, split["member"])
    if file_format == "parquet":
        from pyarrow import parquet  # noqa: PLC0415 - the only format that needs it

        return parquet.read_table(path).to_pylist()
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    text = content.decode("utf-8")
    if file_format == "text":
        # Line ends stay, because a language model learns them.
        return [{"text": line} for line in text.splitlines(keepends=True)]
    if file_format == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return _table(text, file_format, dataset.get("columns"))


def _table(text: str, file_format: str, columns: list[str] | None) -> csv.DictReader:
    """The rows of a CSV or TSV file; without `columns`, its first line names them."""
    # The TSV files of GLUE have bare quotes in their texts, so a quote means nothing there.
    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if file_format == "tsv" else {}
    # With newline="", csv itself handles line breaks inside quotes, as its documentation asks.
    return csv.DictReader(io.StringIO(text, newline=""), fieldnames=columns, **options)


def _tar_members(path: Path, pattern: str) -> Iterator[dict]:
    """The text files of an archive whose whole name matches, in the order of their names.

    The first group of `pattern` is the label. An archive has its files in any order, so they are
    sorted: the rows are then the same for every copy of the data.
    """
    with tarfile.open(path) as archive:
        labels = {}
        for member in archive:
            match = re.fullmatch(pattern, member.name)
            if match:
                labels[member.name] = match[1]
        for name in sorted(labels):
            text = archive.extractfile(name).read().decode("utf-8")
            yield {"text": text, "label": labels[name]}
