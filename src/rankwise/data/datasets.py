"""Prepare a dataset: its rows from the hub, from files or from a generator, as splits of a study.

The selection split is held out of `train` here, once for all runs, so that no run selects its state
or its settings on the split that it reports.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from rankwise.core import progress, provenance, tasks
from rankwise.core.paths import expand
from rankwise.data import answers, facts, labels, reading, splits, synthetic, texts
from rankwise.data.record import Record


def prepare_dataset(request: dict, folder: Path) -> dict:
    """Write the splits `train`, `selection` and the reported one as Arrow files.

    Args:
        request: The request of a dataset entry, with its `name`.
        folder: Gets one file `{split}.arrow` per split.

    Returns:
        `splits`: the number of rows and the SHA-256 of each file. `data`: see `facts.count`.

    Raises:
        ValueError: A source is not the one that the entry names, its rows are not as the entry
            says, or nothing could be learnt from a split or measured on it.
        FileNotFoundError: The folder's name has an environment variable that is not set.
    """
    # Checks before a study read datasets, too, and must not load what writes them.
    from rankwise.data.arrow import write_split  # noqa: PLC0415

    dataset = request["dataset"]
    progress.doing("reading the rows")
    source = read(dataset)
    progress.doing("dividing the rows into splits")
    rows_by_split, found = divide(source.rows, dataset)
    if found:
        raise ValueError(f"config/datasets.yaml: {request['name']}: {found[0]}")
    progress.doing("writing the splits")
    written = {split: write_split(folder, split, rows) for split, rows in rows_by_split.items()}
    return {"splits": written, "data": facts.count(source, rows_by_split, dataset)}


def divide(source: dict[str, list[dict]], dataset: dict) -> tuple[dict[str, list[dict]], list[str]]:
    """Divide the rows of train, and judge the three splits.

    Args:
        source: The rows of `train` and of the reported split, as the source has them. If the
            reported split is a share of train's file, `train` has all rows of the file.
        dataset: A resolved dataset entry.

    Returns:
        The rows of `train`, `selection` and the reported split, and a sentence for every reason why
        they cannot be used.
    """
    reported = dataset["report_split"]
    try:
        if splits.shared_split(dataset):
            train_rows, reported_rows = splits.take_share(source["train"], dataset)
        else:
            train_rows, reported_rows = source["train"], source[reported]
        train, selection = splits.hold_out(splits.sample(train_rows, dataset), dataset)
        report = splits.sample(reported_rows, dataset, "report_rows")
    except ValueError as error:
        return {}, [str(error)]
    rows_by_split = {"train": train, "selection": selection, reported: report}
    return rows_by_split, splits.problems(rows_by_split, dataset)


# Reading ------------------------------------------------------------------------------------------


def read(dataset: dict) -> facts.Source:
    """Read `train` and the reported split; no other split is read.

    Labels are read in one way in both splits, see `labels`.

    Args:
        dataset: A resolved dataset entry.

    Raises:
        ValueError: A file is not the one that the entry names, a row does not fit, or labels can be
            read in two ways.
        FileNotFoundError: The folder's name has an environment variable that is not set.
    """
    rows_by_split, dropped_rows, column = _read_files(dataset)
    if not _has_one_class(dataset):
        return facts.Source(rows_by_split, dropped_rows, [])
    return facts.Source(
        _with_classes(rows_by_split, dataset, column),
        dropped_rows,
        labels.mapping(dataset, column),
    )


def _read_files(
    dataset: dict,
) -> tuple[dict[str, list[dict]], dict[str, int], labels.Column]:
    """Rows and dropped rows of each split that is used, and the labels, which rows refer to."""
    column = labels.Column()
    rows_by_split, dropped_rows = {}, {}
    for split in read_splits(dataset):
        rows_by_split[split], dropped_rows[split] = _read_split(dataset, split, column)
    if shared := splits.shared_split(dataset):  # `divide` takes its rows from train's
        rows_by_split[shared], dropped_rows[shared] = [], dropped_rows["train"]
    return rows_by_split, dropped_rows, column


def _with_classes(
    rows_by_split: dict[str, list[dict]], dataset: dict, column: labels.Column
) -> dict[str, list[dict]]:
    """The rows with the index of the class in place of the label."""
    indices = labels.indices(dataset, column)
    return {
        split: [{**row, "label": indices[row["label"]]} for row in rows]
        for split, rows in rows_by_split.items()
    }


def rows(dataset: dict, split: str) -> list[dict]:
    """The rows of `train` or of the reported split, in the order of the source; see `read`."""
    return read(dataset).rows[split]


def read_splits(dataset: dict) -> list[str]:
    """The splits whose files are read: `train`, and the reported one if it is no share of train."""
    reported = [] if splits.shared_split(dataset) else [dataset["report_split"]]
    return list(dict.fromkeys(["train", *reported]))


def _read_split(dataset: dict, split: str, column: labels.Column) -> tuple[list[dict], int]:
    """The rows of one split, and how many were dropped. `column` gets the labels."""
    rows, dropped = [], 0
    for path, record in _records(dataset, split):
        text = texts.text(record, dataset, path)
        if text is None:
            dropped += 1
            continue
        row = {"text": text, **_label(record, dataset, path, column)}
        rows.append(row)
    return rows, dropped


def _label(record: Record, dataset: dict, path: Path, column: labels.Column) -> dict:
    """The columns that a row has beside its text; a single class is added to `column`."""
    kind = tasks.facts(dataset["task"]).labels
    if kind == tasks.CLASS:
        return {"label": _add_label(record, dataset, path, column)}
    if kind == tasks.NUMBER:
        return {"label": answers.number(record, dataset, path)}
    if kind == tasks.CLASSES:
        return {"label": answers.classes(record, dataset, path)}
    if kind == tasks.TAGS:
        words = answers.words(record, dataset, path)
        return {"words": words, "label": answers.tags(record, dataset, path, len(words))}
    if kind in (tasks.TEXT, tasks.ANSWER):
        return {"label": texts.target(record, dataset, path)}
    return {}


def _has_one_class(dataset: dict) -> bool:
    """Whether each text has one class."""
    return tasks.facts(dataset["task"]).labels == tasks.CLASS


def _records(dataset: dict, split: str) -> Iterator[tuple[Path, Record]]:
    """The records of a split, each with its file. Generated splits have a name in place of one."""
    if "generated" in dataset:
        generated = synthetic.rows(dataset["generated"], split)
        for number, cells in enumerate(generated, 1):
            yield Path(f"generated {split}"), Record(f"row {number}", cells)
        return
    paths = [split_path(dataset, split)]
    for further in dataset["splits"][split].get("further_paths", []):
        paths.append(_download(dataset["hub"], further))
    for path in paths:
        for record in reading.records(path, dataset, split):
            yield path, record


def _add_label(record: Record, dataset: dict, path: Path, column: labels.Column) -> labels.Key:
    """Add the label of a record to the column."""
    name, place = dataset["label"], f"{path}: {record.where}"
    if name not in record.cells:
        present = ", ".join(map(str, record.cells))
        raise ValueError(f"{place}: no column {name!r}, allowed: {present}")
    return column.add(record.cells[name], place)


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


# All problems at once -----------------------------------------------------------------------------


def problems(dataset: dict, where: str, skipped: Collection[str] = ()) -> list[str]:
    """Every reason why the rows of a dataset could not be prepared, a sentence each.

    Args:
        dataset: A resolved entry that is generated or whose files are on this machine.
        where: File and key of the entry, for messages.
        skipped: Splits that are not looked at, because their file is missing or wrong.
    """
    looked_at = [split for split in read_splits(dataset) if split not in skipped]
    found: list[str] = []
    if "generated" not in dataset:
        for split in looked_at:
            found += reading.problems(split_path(dataset, split), dataset, split)
    is_labelled = _has_one_class(dataset)
    if found or skipped:
        column = _readable_labels(dataset, looked_at) if is_labelled else labels.Column()
        return found + labels.problems(dataset, column, whole=False)
    try:
        rows_by_split, _, column = _read_files(dataset)
    except ValueError as error:  # a record without a label, or with one that is none
        return [str(error)]
    if is_labelled:
        found = labels.problems(dataset, column)
        if found:
            return found
        rows_by_split = _with_classes(rows_by_split, dataset, column)
    return [f"{where}: {sentence}" for sentence in divide(rows_by_split, dataset)[1]]


def _readable_labels(dataset: dict, looked_at: list[str]) -> labels.Column:
    """The labels of the rows of these splits that can be read."""
    column = labels.Column()
    for split in looked_at:
        path = split_path(dataset, split)
        for record in reading.fitting_records(path, dataset, split):
            if dataset["label"] in record.cells:  # else it is among the problems of the rows
                _add_label(record, dataset, path, column)
    return column
