"""Read a dataset from a pinned hub revision, from checked files or from a generator.

The selection split is held out of `train` here, once for all runs, so that no run selects its state
or its settings on the split that it reports.
"""

import csv
import gzip
import io
import json
import random
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from rankwise.core import provenance
from rankwise.core.paths import expand
from rankwise.data import synthetic
from rankwise.data.arrow import write_split

SPLIT_SEED = 0


def prepare_dataset(request: dict, folder: Path) -> dict:
    """Write the splits `train`, `selection` and the reported one as Arrow files.

    Args:
        request: The request of a dataset entry.
        folder: Gets one file `{split}.arrow` per split.

    Returns:
        `splits`: the number of rows and the SHA-256 of each file.

    Raises:
        ValueError: A source is not the one that the entry names, its rows are not as the entry
            says, or no row would be left to train on.
        FileNotFoundError: The folder's name has an environment variable that is not set.
    """
    dataset = request["dataset"]
    reported = dataset["report_split"]
    train, selection = hold_out(list(rows(dataset, "train")), dataset)
    splits = {
        "train": train,
        "selection": selection,
        reported: list(rows(dataset, reported)),
    }
    written = {split: write_split(folder, split, examples) for split, examples in splits.items()}
    return {"splits": written}


def hold_out(examples: list[dict], dataset: dict) -> tuple[list[dict], list[dict]]:
    """Split the rows of `train` into (train, selection).

    Labelled rows are drawn at random. Of running text, the end is held out: neighbouring lines
    belong together, so random lines would leak their context.

    Args:
        examples: The rows of `train`, in the order of the source; the list itself is not changed.
        dataset: `train_rows` (use the first rows only; None: all), `selection_rows` (rows to hold
            out) and whether there is a `label`.

    Returns:
        The rows to train on, and the `selection_rows` rows that are held out.

    Raises:
        ValueError: No row would be left to train on.
    """
    examples = examples[: dataset["train_rows"]]
    count = dataset["selection_rows"]
    if count >= len(examples):
        raise ValueError(
            f"selection_rows: got {count}, allowed: less than the {len(examples)} rows of train"
        )
    if "label" in dataset:
        random.Random(SPLIT_SEED).shuffle(examples)
    return examples[:-count], examples[-count:]


def rows(dataset: dict, split: str) -> Iterator[dict]:
    """The rows of one split, in the order of the source.

    Args:
        dataset: A resolved dataset entry.
        split: The name of one of its splits.

    Returns:
        `{"text": ..., "label": ...}`, where the label is an index into the dataset's classes; for
        unlabelled datasets, `text` alone.

    Raises:
        ValueError: The file is not the one that the entry names, a column is missing, or a label is
            unknown.
    """
    if "generated" in dataset:
        yield from synthetic.rows(dataset["generated"], split)
        return
    path = split_path(dataset, split)
    for index, record in enumerate(_records(path, dataset, dataset["splits"][split])):
        row = {"text": _text(record, dataset["text"], path)}
        if "label" in dataset:
            row["label"] = _label(record, dataset, path, index)
        yield row


def split_path(dataset: dict, split: str) -> Path:
    """The file of one split on this machine; it is downloaded if the dataset is on the hub.

    Args:
        dataset: A resolved dataset entry with `hub` or `files`.
        split: The name of one of its splits.

    Raises:
        FileNotFoundError: The folder's name has an environment variable that is not set.
        ValueError: The file's SHA-256 is not the one that the entry gives.
    """
    source = dataset["splits"][split]
    if "hub" in dataset:
        path = _download(dataset["hub"], source["path"])
    else:
        path = expand(dataset["files"]["folder"]) / source["path"]
    if "sha256" in source:
        sha256 = provenance.file_sha256(path)
        if sha256 != source["sha256"]:
            # The request has the digest from when the workflow was planned.
            allowed = source["sha256"] or "none: it was not there when the workflow was planned"
            raise ValueError(f"{path}: sha256 is {sha256}, allowed: {allowed}; run snakemake again")
    return path


def _download(hub: dict, path: str) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - offline studies never load it

    return Path(hf_hub_download(hub["repo"], path, repo_type="dataset", revision=hub["revision"]))


def _records(path: Path, dataset: dict, split: dict) -> Iterable[dict]:
    """The records of a file as its format has them: column -> value."""
    source = dataset.get("files") or dataset["hub"]
    file_format = source["format"]
    if file_format == "tar":
        return _tar_members(path, split["member"])
    if file_format == "parquet":
        import pandas  # noqa: PLC0415 - the only format that needs it

        return pandas.read_parquet(path).to_dict("records")
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


def _text(record: dict, columns: str | list[str], path: Path) -> str:
    """The text of a record: one column, or several joined by spaces."""
    names = [columns] if isinstance(columns, str) else columns
    for name in names:
        if name not in record:
            allowed = ", ".join(map(str, record))
            raise ValueError(f"{path}: no column {name!r}, allowed: {allowed}")
    return " ".join(str(record[name]) for name in names)


def _label(record: dict, dataset: dict, path: Path, index: int) -> int:
    """The index of the record's class.

    A file gives the class by its name or by its number; the first class has number `first_label`.
    """
    value = str(record.get(dataset["label"]))
    classes = dataset["classes"]
    first = dataset["first_label"]
    numbers = [str(number) for number in range(first, first + len(classes))]
    if value in classes:
        return classes.index(value)
    if value in numbers:
        return numbers.index(value)
    allowed = f"{', '.join(numbers)} or {', '.join(classes)}"
    raise ValueError(f"{path}: row {index + 1}: label {value!r}, allowed: {allowed}")
