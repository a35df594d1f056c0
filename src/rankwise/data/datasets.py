"""Read a dataset from a pinned hub revision, from checked files or from a generator; write its splits as JSON lines.

The selection slice is held out of train here, once, so that no run selects on what it reports.
"""

import csv
import gzip
import io
import json
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rankwise.core import provenance, result
from rankwise.core.paths import expand
from rankwise.data import synthetic

SPLIT_SEED = 0


def prepare_dataset(request: dict, folder: Path) -> dict:
    """Write `{split}.jsonl` into `folder`; the result names rows and SHA-256 of each."""
    dataset = request["dataset"]
    report = dataset["report_split"]
    train, selection = hold_out(list(rows(dataset, "train")), dataset)
    splits = {"train": train, "selection": selection, report: list(rows(dataset, report))}
    found = {}
    for split, examples in splits.items():
        path = folder / f"{split}.jsonl"
        result.write_text(
            path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in examples)
        )
        found[split] = {"rows": len(examples), "sha256": provenance.file_sha256(path)}
    return {"splits": found}


def hold_out(examples: list[dict], dataset: dict) -> tuple[list[dict], list[dict]]:
    """(train, selection): random rows for labelled examples, the last ones for running text.

    Raises:
        ValueError: nothing would be left to train on.
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
    """`{"text": ..., "label": ...}` of one split, the label as an index into the dataset's classes."""
    if "generated" in dataset:
        yield from synthetic.rows(dataset["generated"], split)
        return
    path = split_path(dataset, split)
    for number, record in enumerate(_records(path, dataset, dataset["splits"][split])):
        row = {"text": _text(record, dataset["text"], path)}
        yield {**row, "label": _label(record, dataset, path, number)} if "label" in dataset else row


def split_path(dataset: dict, split: str) -> Path:
    """The file of one split on this machine, its SHA-256 checked where the entry gives one.

    Raises:
        ValueError: the file is not the one that the entry names.
    """
    wanted = dataset["splits"][split]
    if "hub" in dataset:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - offline studies never load it

        hub = dataset["hub"]
        path = Path(
            hf_hub_download(
                hub["repo"], wanted["path"], repo_type="dataset", revision=hub["revision"]
            )
        )
    else:
        path = expand(dataset["files"]["folder"]) / wanted["path"]
    if "sha256" in wanted and (found := provenance.file_sha256(path)) != wanted["sha256"]:
        raise ValueError(f"{path}: sha256 is {found}, allowed: {wanted['sha256']}")
    return path


def _records(path: Path, dataset: dict, split: dict) -> Iterator[dict]:
    form = (dataset.get("files") or dataset["hub"])["format"]
    if form == "tar":
        return _members(path, split["member"])
    if form == "parquet":
        import pandas  # noqa: PLC0415 - one format of six needs it

        return iter(pandas.read_parquet(path).to_dict("records"))
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    if form == "text":
        return ({"text": line} for line in text.splitlines(keepends=True))
    if form == "jsonl":
        return (json.loads(line) for line in text.splitlines())
    quoting = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if form == "tsv" else {}
    return csv.DictReader(
        io.StringIO(text, newline=""), fieldnames=dataset.get("columns"), **quoting
    )


def _members(path: Path, pattern: str) -> Iterator[dict]:
    """Text files of a tar archive whose name matches; the pattern's first group is the label. In the order of names."""
    with tarfile.open(path) as archive:
        found = {
            member.name: match[1]
            for member in archive
            if (match := re.fullmatch(pattern, member.name))
        }
        for name in sorted(found):
            yield {"text": archive.extractfile(name).read().decode("utf-8"), "label": found[name]}


def _text(record: dict, columns: str | list[str], path: Path) -> str:
    names = [columns] if isinstance(columns, str) else columns
    for name in names:
        if name not in record:
            raise ValueError(f"{path}: no column {name!r}, allowed: {', '.join(map(str, record))}")
    return " ".join(str(record[name]) for name in names)


def _label(record: dict, dataset: dict, path: Path, number: int) -> int:
    """The index of the record's class, given by name or by number (the first class is `first_label`)."""
    value, classes = str(record.get(dataset["label"])), dataset["classes"]
    numbers = [str(index + dataset["first_label"]) for index in range(len(classes))]
    for names in (classes, numbers):
        if value in names:
            return names.index(value)
    raise ValueError(
        f"{path}: row {number + 1}: label {value!r}, allowed: {', '.join(numbers)} or {', '.join(classes)}"
    )
