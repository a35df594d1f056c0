"""Which files a dataset has: their format, and the split that each one is.

A name says what its bytes say too, or the file is refused: a `.csv` whose cells stand between tabs
is a TSV, and one with semicolons is nothing that this project reads.
"""

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from rankwise.core import paths
from rankwise.data import propose_archives
from rankwise.data.reading import lines

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "jsonl",
    ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "text", ".text": "text", ".raw": "text",
}  # fmt: skip
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# Words in a file's name -> the split that it is.
SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
REPORTED = ("test", "validation")  # the first one that is there is reported


class Files(NamedTuple):
    """The files of a dataset.

    Attributes:
        folder: As the entry writes it: it may hold ${VARIABLES}.
        place: The folder on this machine.
        file_format: As entries name it.
        names: Split -> name of its file. `train` alone if there is one file.
        notes: Sentences on what was seen and is not used.
        members: Split -> pattern of the names of its files in an archive; empty for other formats.
    """

    folder: str
    place: Path
    file_format: str
    names: dict[str, str]
    notes: list[str]
    members: dict[str, str]

    def path(self, split: str) -> Path:
        """The file of a split on this machine."""
        return self.place / self.names[split]


def find(given: str, project: Path, file_format: str | None = None) -> Files:
    """The files of a dataset.

    Args:
        given: A file, or a folder with a file for each split; it may hold ${VARIABLES}.
        project: The folder that the user works in; entries name folders relative to it.
        file_format: The format of all files, where their names do not say it.

    Raises:
        ValueError: There is no such file, its format is not known, or the folder's files leave open
            which split they are.
    """
    try:
        path = project / paths.expand(given)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    if path.is_dir():
        return _of_folder(given, path, project, file_format)
    if not path.is_file():
        raise ValueError(f"{given}: no such file or folder{_nearby(path)}")
    found = _format(path, file_format)
    notes: list[str] = []
    folder = _folder(given, path.parent, project, is_file=True)
    if found == "tar":
        members = propose_archives.members(path, SPLITS, notes)
        names = dict.fromkeys(members, path.name)
        return Files(folder, path.parent, found, names, notes, members)
    others = [name for name in _by_split(path.parent, None) if name != "train"]
    if split_of(path.name) == "train" and others:
        notes.append(f"beside it: {', '.join(others)}; to use these splits, give the folder")
    return Files(folder, path.parent, found, {"train": path.name}, notes, {})


def split_of(name: str) -> str | None:
    """The split that a file's name says: `validation` for `dev.tsv`; None if it says none."""
    words = re.split(r"[^a-z]+", name.lower())
    named = [SPLITS[word] for word in words if word in SPLITS]
    return named[0] if named else None


def _of_folder(given: str, path: Path, project: Path, file_format: str | None) -> Files:
    by_split = _by_split(path, file_format)
    every = _data_files(path, file_format)
    if not every:
        allowed = f"a file that ends in {', '.join(FORMATS)}"
        raise ValueError(f"{given}: got a folder without data, allowed: {allowed}")
    if "train" not in by_split:
        if len(every) > 1:
            names = ", ".join(file.name for file in every)
            allowed = "a file named train, and one named test or validation; or give one file"
            raise ValueError(f"{given}: got {names}, allowed: {allowed}")
        by_split = {"train": every}
    for split, files in by_split.items():
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(
                f"{given}: got {len(files)} files for {split} ({names}), allowed: one a split; "
                "join them, or move the others away"
            )
    formats = {split: _format(files[0], file_format) for split, files in by_split.items()}
    if len(set(formats.values())) > 1:
        got = ", ".join(f"{split} {name}" for split, name in formats.items())
        raise ValueError(f"{given}: got {got}, allowed: one format for all splits")
    used = [files[0] for files in by_split.values()]
    left = [file.name for file in every if file not in used]
    notes = [f"not used: {', '.join(left)}"] if left else []
    folder = _folder(given, path, project, is_file=False)
    names = {split: files[0].name for split, files in by_split.items()}
    return Files(folder, path, formats["train"], names, notes, {})


def _by_split(folder: Path, file_format: str | None) -> dict[str, list[Path]]:
    """Split -> the files of a folder whose names say that split; train first."""
    by_split: dict[str, list[Path]] = {}
    for file in _data_files(folder, file_format):
        if split := split_of(file.name):
            by_split.setdefault(split, []).append(file)
    order = ("train", *REPORTED)
    return {split: by_split[split] for split in order if split in by_split}


def _data_files(folder: Path, file_format: str | None) -> list[Path]:
    """The files of a folder that can be data: those of a known ending, or all if one is given."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    shown = [file for file in files if not file.name.startswith(".")]
    return [file for file in shown if file_format or _ending(file.name) in FORMATS]


def _ending(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _format(path: Path, given: str | None) -> str:
    """The format of a file, from its name and its first line."""
    if not path.stat().st_size:
        raise ValueError(f"{path}: is empty, allowed: at least one row")
    if given:
        return given
    if path.name.lower().endswith(ARCHIVES):
        return "tar"
    known = FORMATS.get(_ending(path.name))
    if known is None:
        endings = ", ".join(FORMATS)
        raise ValueError(
            f"{path}: the name does not say a format, allowed: a file that ends in {endings} "
            "(and .gz), or say it: --format csv"
        )
    if known == "csv":
        return _table_format(path)
    return known


def _table_format(path: Path) -> str:
    """Whether the cells of a `.csv` stand between commas or tabs."""
    _, first = next(iter(lines.numbered_lines(path)), (0, ""))
    if "," in first:
        return "csv"
    if "\t" in first:
        return "tsv"
    if ";" in first:
        raise ValueError(
            f"{path}: row 1: cells between semicolons, allowed: commas or tabs; in Python: "
            "pandas.read_csv(FILE, sep=';').to_csv(NEW, index=False)"
        )
    return "csv"


def _folder(given: str, place: Path, project: Path, is_file: bool) -> str:
    """A folder as the entry writes it: with its variables, or relative to the project."""
    if "$" in given:
        return str(Path(given).parent) if is_file else given.rstrip("/")
    absolute = Path(os.path.abspath(place))  # noqa: PTH100 - `resolve` would follow links
    root = Path(os.path.abspath(project))  # noqa: PTH100
    is_inside = absolute.is_relative_to(root)
    return absolute.relative_to(root).as_posix() if is_inside else absolute.as_posix()


def _nearby(path: Path) -> str:
    """The end of a sentence on a missing file: what its folder has."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} is not there either"
    names = sorted(file.name for file in path.parent.iterdir() if not file.name.startswith("."))
    nearest = difflib.get_close_matches(path.name, names, n=1)
    return f" (nearest: {nearest[0]!r})" if nearest else ""
