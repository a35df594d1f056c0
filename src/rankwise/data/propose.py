"""Propose the entry of a dataset from its files: format, columns, classes, splits, lengths.

The rows are read by `rankwise.data.reading`, as a study reads them, and the proposed entry is
checked as one that a person wrote. So what is shown is what will be trained on. An option of the
command line decides whatever the files leave open.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rankwise.core import content, paths, tasks
from rankwise.core.dataset_defaults import ANSWER, PROMPT
from rankwise.core.schemas import check
from rankwise.data import (
    datasets,
    instructions,
    labels,
    propose_answers,
    propose_columns,
    propose_counts,
    propose_files,
    propose_labels,
    reading,
    texts,
)
from rankwise.data.record import Record
from rankwise.study import dataset_entries
from rankwise.study.dataset_formats import TABLES, check_format

RUNNING_TEXT = texts.RUNNING_TEXT
SHARE = 0.2  # of the rows, reported on where there is one file
UNLABELLED_SHARE = 0.1  # of a task without labels
EXAMPLES = 3
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Choices:
    """What the user says about the files; everything else is read from them.

    Attributes:
        name: The entry's name.
        text: Columns of the text, joined by a space.
        label: Column of the label.
        task: The task of the entry.
        columns: Names of the columns of a table without a header.
        quotes: Whether quotes hold cells together.
        file_format: The format of all files.
        drop_missing: Whether rows without a text are left out.
        max_length: Length of a text, or of a block of running text, in tokens.
    """

    name: str | None = None
    text: list[str] = field(default_factory=list)
    label: str | None = None
    task: str | None = None
    columns: list[str] = field(default_factory=list)
    quotes: bool | None = None
    file_format: str | None = None
    drop_missing: bool = False
    max_length: int | None = None


@dataclass(frozen=True)
class Proposal:
    """A proposed entry, and what it was made from.

    Attributes:
        name: The entry's name.
        entry: As it is written into config/datasets.yaml.
        rows: Split -> number of rows of its file.
        columns: The columns of train, in words.
        classes: Class -> how often it is there in all files; empty without classes.
        examples: The first rows as they will be read: `row`, `text` and perhaps `class`, or `label`
            where that is no single class.
        notes: Sentences on what was decided, and why.
    """

    name: str
    entry: dict
    rows: dict[str, int]
    columns: list[str]
    classes: dict[str, int]
    examples: list[dict[str, str]]
    notes: list[str]


def propose(given: str, choices: Choices, project: Path) -> Proposal:
    """Propose an entry.

    Args:
        given: A file, or a folder with a file for each split; it may hold ${VARIABLES}.
        choices: What the user says.
        project: The folder that the user works in.

    Raises:
        ValueError: A file cannot be read, or leaves open what it means; one sentence.
    """
    files = propose_files.find(given, project, choices.file_format)
    notes = list(files.notes)
    entry = _sources(files, choices)
    columns = _columns(files, entry, choices)
    entry = _with_meaning(entry, files, columns, choices, notes)
    entry |= _used_splits(files, entry, notes)
    if choices.drop_missing:
        entry["missing_text"] = "drop"
    counted = propose_counts.count(
        entry, {split: _records(files, entry, split) for split in entry["splits"]}, files
    )
    entry |= _classes(files, entry, counted)
    entry |= propose_counts.sizes(counted, entry, choices.max_length, notes)
    resolved = _checked(files, entry, choices.name or default_name(given), project)
    with files.path("train").open("rb") as file:
        if file.read(3) == BYTE_ORDER_MARK:
            notes.append("the file begins with a byte order mark, which is no part of the text")
    return Proposal(
        choices.name or default_name(given),
        entry,
        counted.rows,
        [column.described() for column in columns.values()],
        propose_counts.class_counts(resolved, counted),
        list(_examples(files, resolved, counted.labels)),
        notes,
    )


def default_name(given: str) -> str:
    """The name of an entry, from the name of its file or folder."""
    stem = Path(given.rstrip("/")).name
    stem = stem.removesuffix(".gz").rsplit(".", 1)[0] if "." in stem.lstrip(".") else stem
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem)
    return name.strip("_-") or "dataset"


# Reading ------------------------------------------------------------------------------------------


def _sources(files: propose_files.Files, choices: Choices) -> dict:
    """The keys that say how the files are read."""
    entry: dict = {"files": {"folder": files.folder, "format": files.file_format}}
    if choices.columns:
        entry["columns"] = choices.columns
    if choices.quotes is not None:
        entry["quotes"] = choices.quotes
    for key, value in entry.items():
        if key != "files" and files.file_format not in TABLES:
            raise ValueError(
                f"--{key}: got {value!r}, allowed: nothing for {files.file_format}, only for "
                f"{' and '.join(TABLES)}"
            )
    return entry


def _records(files: propose_files.Files, entry: dict, split: str) -> Iterator[Record]:
    """The rows of a split, with the options that a sentence on an entry's key stands for."""
    try:
        yield from reading.records(files.path(split), entry, split)
    except ValueError as error:
        options = []
        if "`quotes: " in str(error):
            options.append("here: --quotes yes or --quotes no")
        if "set `columns`" in str(error):
            options.append("here: --columns NAME NAME ...")
        raise ValueError("; ".join([str(error), *options])) from None


def _columns(
    files: propose_files.Files, entry: dict, choices: Choices
) -> dict[str, propose_columns.Column]:
    """The columns of train, and a check that the first line of a table names them."""
    splits = {split: {"path": name} for split, name in files.names.items()}
    for split, pattern in files.members.items():
        splits[split]["member"] = pattern
    every = {**entry, "text": [], "splits": splits}  # no column is asked for
    if choices.label and files.file_format == "parquet":
        every["label"] = choices.label  # the file may have names of its numbers
    columns = propose_columns.look(_records(files, every, "train"))
    if files.file_format in TABLES and not (choices.columns or choices.text or choices.label):
        header = reading.columns(files.path("train"), every)
        wrong = propose_columns.looks_like_a_row(header, columns)
        if wrong is not None:
            names = " ".join(["NAME"] * len(header))
            raise ValueError(
                f"{files.path('train')}: row 1: {wrong!r} looks like a value and no name of a "
                "column, allowed: a header; name the columns of a file without one: --columns "
                f"{names}; if it is the header: --text and --label name its columns"
            )
    return columns


def _meaning(
    files: propose_files.Files, columns: dict[str, propose_columns.Column], choices: Choices
) -> propose_labels.Meaning:
    """The task, the text and the label."""
    where, task = str(files.path("train")), choices.task
    if task is None and files.file_format == "text":
        task = RUNNING_TEXT
    if task is None and len(columns) == 1 and not choices.label:
        raise ValueError(
            f"{where}: got one column ({next(iter(columns))}), allowed: a text and a "
            "label; or say what to train on the text alone: --task language_modelling (a Llama or "
            "GPT) or --task masked_language_modelling (a BERT)"
        )
    return propose_labels.meaning(columns, where, task, choices.label, choices.text)


def _with_meaning(
    entry: dict,
    files: propose_files.Files,
    columns: dict[str, propose_columns.Column],
    choices: Choices,
    notes: list[str],
) -> dict:
    """The entry with its task, and the columns of text and label or of prompt and answer."""
    answers = propose_answers.keys(columns)
    is_open = choices.task in (None, propose_answers.TASK) and not (choices.text or choices.label)
    if answers is not None and is_open:
        return {"task": propose_answers.TASK, **entry, **answers}
    if choices.task == propose_answers.TASK:
        if choices.text and choices.label:
            prompt = " ".join(f"{{{name}}}" for name in choices.text)
            given = {PROMPT: prompt if len(choices.text) > 1 else choices.text[0]}
            propose_columns.check_is_there(
                columns, str(files.path("train")), "--text", choices.text
            )
            return {"task": choices.task, **entry, **given, ANSWER: choices.label}
        described = "; ".join(column.described() for column in columns.values())
        raise ValueError(
            f"{files.path('train')}: no prompts and answers: got {described}, allowed: columns "
            "called prompt and answer, or messages; name others: --text COLUMN --label COLUMN"
        )
    meaning = _meaning(files, columns, choices)
    text = meaning.text[0] if len(meaning.text) == 1 else meaning.text
    found = {"task": meaning.task, **entry, "text": text}
    if meaning.label is not None:
        found["label"] = meaning.label
    if meaning.note:
        notes.append(meaning.note)
    return found


def _classes(files: propose_files.Files, entry: dict, counted: propose_counts.Counted) -> dict:
    """`classes`, where the task has them."""
    kind = tasks.facts(entry["task"]).labels
    if kind == tasks.CLASS:
        return propose_counts.classes(counted.labels)
    if kind in propose_counts.LISTS:
        where = f"{files.path('train')}: {entry['label']}"
        return {"classes": propose_labels.classes_of_items(kind, list(counted.items), where)}
    return {}


def _used_splits(files: propose_files.Files, entry: dict, notes: list[str]) -> dict:
    """`splits` and `report_split`: a split of its own, or a share of the one file."""
    splits = {}
    for split, name in files.names.items():
        splits[split] = {"path": name, "sha256": content.sha256(files.path(split))}
        if files.members:
            splits[split]["member"] = files.members[split]
    reported = [split for split in propose_files.REPORTED if split in splits]
    for split in list(reported):
        if "label" in entry and not _is_labelled(files, {**entry, "splits": splits}, split):
            reported.remove(split)
            notes.append(f"{split} has no labels, so nothing can be reported on it")
            del splits[split]
    if reported:
        return {"splits": splits, "report_split": reported[0]}
    share = SHARE if "label" in entry else UNLABELLED_SHARE
    splits["test"] = {**splits["train"], "share": share}
    how = "its end" if entry["task"] == RUNNING_TEXT else "drawn by a digest of the text"
    if tasks.facts(entry["task"]).labels == tasks.CLASS:
        how = "drawn in each class"
    notes.append(
        f"one file to train and report on: {share:.0%} of its rows ({how}) are held out as `test`"
    )
    return {"splits": splits, "report_split": "test"}


def _is_labelled(files: propose_files.Files, entry: dict, split: str) -> bool:
    """Whether a split has labels: GLUE's test splits have -1, or no such column."""
    try:
        for record in _records(files, {**entry, "text": []}, split):
            if record.cells.get(entry["label"]) not in (None, "", *labels.UNLABELLED):
                return True
    except ValueError as error:
        if f"no column {entry['label']!r}" not in str(error):
            raise
    return False


# The result ---------------------------------------------------------------------------------------


def _checked(files: propose_files.Files, entry: dict, name: str, project: Path) -> dict:
    """The entry with defaults, after all checks that a study's own entries go through.

    Raises:
        ValueError: The first reason why the dataset could not be prepared.
    """
    file = dataset_entries.FILE
    resolved = check({name: entry}, paths.SCHEMAS / "datasets.schema.yaml", file)[name]
    dataset_entries.check(name, resolved)
    check_format(name, resolved)
    folder = str(project / files.place)
    readable = {**resolved, "files": {**resolved["files"], "folder": folder}}
    found = datasets.problems(readable, name)
    if found:
        raise ValueError(found[0])
    return resolved


def _examples(
    files: propose_files.Files, entry: dict, column: labels.Column
) -> Iterator[dict[str, str]]:
    """The first rows of train as they will be read."""
    kind = tasks.facts(entry["task"]).labels
    indices = labels.indices(entry, column) if kind == tasks.CLASS else {}
    path, shown = files.path("train"), labels.Column()
    for record in islice(_records(files, entry, "train"), EXAMPLES):
        example = {"row": record.where, "text": texts.text(record, entry, path) or "left out"}
        if indices:
            key = shown.add(record.cells[entry["label"]], record.where)
            example["class"] = entry["classes"][indices[key]]
        elif instructions.has_answers(entry):
            example["label"] = texts.target(record, entry, path)
        elif kind in propose_labels.LABEL_TEXTS:
            example["label"] = propose_labels.LABEL_TEXTS[kind](record, entry, path)
        yield example
