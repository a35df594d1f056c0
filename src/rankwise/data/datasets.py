"""Read a dataset from a pinned hub revision, from checked files or from a generator.

The selection split is held out of `train` here, once for all runs, so that no run selects its state
or its settings on the split that it reports.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from rankwise.core import provenance, result
from rankwise.core.paths import expand
from rankwise.data import reading, synthetic, texts

SPLIT_SEED = 0


def prepare_dataset(request: dict, folder: Path) -> dict:
    """Write the splits `train`, `selection` and the reported one as JSON lines.

    Args:
        request: The request of a dataset entry.
        folder: Gets one file `{split}.jsonl` per split.

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
    written = {}
    for split, examples in splits.items():
        path = folder / f"{split}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in examples]
        result.write_text(path, "".join(lines))
        written[split] = {"rows": len(examples), "sha256": provenance.file_sha256(path)}
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
        ValueError: The file is not the one that the entry names, a row does not fit, or a label is
            unknown.
    """
    if "generated" in dataset:
        yield from synthetic.rows(dataset["generated"], split)
        return
    path = split_path(dataset, split)
    for record in reading.records(path, dataset, split):
        text = texts.text(record, dataset, path)
        if text is None:
            continue
        row = {"text": text}
        if "label" in dataset:
            row["label"] = _label(record, dataset, path)
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
            raise ValueError(f"{path}: sha256 is {sha256}, allowed: {source['sha256']}")
    return path


def _download(hub: dict, path: str) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - offline studies never load it

    return Path(hf_hub_download(hub["repo"], path, repo_type="dataset", revision=hub["revision"]))


def _label(record: reading.Record, dataset: dict, path: Path) -> int:
    """The index of the record's class.

    A file gives the class by its name or by its number; the first class has number `first_label`.
    """
    value = str(record.cells.get(dataset["label"]))
    classes = dataset["classes"]
    first = dataset["first_label"]
    numbers = [str(number) for number in range(first, first + len(classes))]
    if value in classes:
        return classes.index(value)
    if value in numbers:
        return numbers.index(value)
    allowed = f"{', '.join(numbers)} or {', '.join(classes)}"
    raise ValueError(f"{path}: {record.where}: label {value!r}, allowed: {allowed}")
