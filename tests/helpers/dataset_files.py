"""Files of datasets for tests: write one, and read it as an entry says."""

from pathlib import Path

from rankwise.data import reading, texts


def entry(folder: Path, file_format: str, name: str, **changes: object) -> dict:
    """A resolved entry of a classification dataset with one file.

    Args:
        folder: Has the file.
        file_format: As in config/datasets.yaml.
        name: The file's name.
        changes: Other keys, and other values; None leaves a key out.
    """
    dataset = {
        "task": "classification",
        "files": {"folder": str(folder), "format": file_format},
        "splits": {"train": {"path": name}},
        "report_split": "train",
        "text": "text",
        "label": "label",
        "first_label": 0,
        "classes": ["no", "yes"],
        "selection_rows": 1,
        "train_rows": None,
        "quotes": None,
        "missing_text": "refuse",
        "max_length_tokens": 8,
        **changes,
    }
    return {key: value for key, value in dataset.items() if value is not None}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file; a text as UTF-8, and its line ends as they are."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path: Path, file_format: str, **changes: object) -> list[reading.Record]:
    """The records of a file."""
    dataset = entry(path.parent, file_format, path.name, **changes)
    return list(reading.records(path, dataset, "train"))


def cells(path: Path, file_format: str, **changes: object) -> list[tuple]:
    """The values of each row of a file."""
    return [tuple(record.cells.values()) for record in read(path, file_format, **changes)]


def texts_of(path: Path, file_format: str, **changes: object) -> list[str | None]:
    """The text of each row of a file; None for a row that is dropped."""
    dataset = entry(path.parent, file_format, path.name, **changes)
    return [texts.text(record, dataset, path) for record in reading.records(path, dataset, "train")]


def problems(path: Path, file_format: str, **changes: object) -> list[str]:
    """The sentences on a file, without its path."""
    dataset = entry(path.parent, file_format, path.name, **changes)
    found = reading.problems(path, dataset, "train")
    assert all(sentence.startswith(f"{path}: ") for sentence in found)
    return [sentence.removeprefix(f"{path}: ") for sentence in found]
