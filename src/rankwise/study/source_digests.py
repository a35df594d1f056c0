"""Digests of the files of datasets and models, for their requests.

The content of a file decides what is prepared from it, so a request has the SHA-256 of every file
that an entry reads from a folder. An entry's own `sha256` is a check (`data/sources.py`): with or
without it, the request is the same.

A machine need not have the files: results stay valid where only `results/` was copied. Such a file
has the digest that the entry gives, or else the one that the prepared dataset or model in the store
was made from. If several were prepared, that of this study decides. If none is known, or several
are, the digest is None, and no job that reads the file starts.

Standard library only: the Snakefile imports this module.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from rankwise.core import content, result, store
from rankwise.core.config import without
from rankwise.core.paths import expand
from rankwise.core.snapshot_files import copied_files

Value = TypeVar("Value", str, dict)


class SourceDigests:
    """The digests of the files that entries name; each file is hashed once.

    Args:
        root: The project's folder.
        results: The study's folder, relative to the project.
    """

    def __init__(self, root: Path, results: str):
        self._root, self._results = root, results
        self._sha256_by_file: dict[Path, str | None] = {}
        self._records: dict[tuple[str, str], list[list[dict]]] = {}

    def dataset(self, name: str, entry: dict) -> dict:
        """A dataset's entry, with the SHA-256 of every split's file.

        Splits that the study does not use have one, too: labels are read in all splits together.

        Args:
            name: The entry's name.
            entry: Returned as it is if it does not come from `files`.
        """
        if "files" not in entry:
            return entry
        splits = {}
        for split, source in entry["splits"].items():
            splits[split] = {**source, "sha256": self._split(name, entry, split)}
        return {**entry, "splits": splits}

    def evaluation(self, entry: dict) -> dict:
        """An evaluation's entry, with the SHA-256 of every file that it reads.

        A file that is not on this machine has the digest that the entry gives, or None.

        Args:
            entry: Returned as it is if it does not come from `files`.
        """
        if "files" not in entry:
            return entry
        files = dict(entry["files"])
        for use in ("test", "few_shot"):
            if use in files:
                found = self._sha256(files["folder"], files[use]["path"])
                files[use] = {**files[use], "sha256": found or files[use].get("sha256")}
        return {**entry, "files": files}

    def model(self, name: str, entry: dict) -> dict:
        """A model's entry, with `weights.contents`: file -> SHA-256 of every file that is copied.

        Args:
            name: The entry's name.
            entry: Returned as it is if its weights do not come from `files`.
        """
        weights = entry.get("weights", {})
        if "files" not in weights:
            return entry
        return {**entry, "weights": {**weights, "contents": self._model_files(name, weights)}}

    def _split(self, name: str, entry: dict, split: str) -> str | None:
        folder, source = entry["files"]["folder"], entry["splits"][split]
        found = self._sha256(folder, source["path"])
        if found or "sha256" in source:
            return found or source["sha256"]

        def recorded(made_from: dict) -> str | None:
            made_source = made_from.get("splits", {}).get(split, {})
            is_same_file = (
                made_from.get("files", {}).get("folder") == folder
                and made_source.get("path") == source["path"]
            )
            return made_source.get("sha256") if is_same_file else None

        return self._recorded("dataset", name, recorded)

    def _model_files(self, name: str, weights: dict) -> dict[str, str] | None:
        digests = {file: self._sha256(weights["files"], file) for file in self._copied(weights)}
        if digests and all(digests.values()):
            return digests

        def recorded(made_from: dict) -> dict[str, str] | None:
            made_weights = made_from.get("weights", {})
            is_same = without(made_weights, ("contents",)) == weights
            return made_weights.get("contents") if is_same else None

        return self._recorded("model", name, recorded)

    def _copied(self, weights: dict) -> list[str]:
        """The files that would be copied; none if the folder or its weights are not there."""
        try:
            return copied_files(self._root / expand(weights["files"]))
        except (OSError, ValueError):  # `data/sources.py` says why before a job would read them
            return []

    def _sha256(self, folder: str, name: str) -> str | None:
        """The SHA-256 of a file; None if it is not there or cannot be read."""
        try:
            file = self._root / expand(folder) / name
        except FileNotFoundError:  # a variable in the folder's name is not set
            return None
        if file not in self._sha256_by_file:
            self._sha256_by_file[file] = self._hashed(file)
        return self._sha256_by_file[file]

    def _hashed(self, file: Path) -> str | None:
        try:
            return content.sha256(file, self._root) if file.is_file() else None
        except OSError:
            return None

    def _recorded(self, kind: str, name: str, read: Callable[[dict], Value | None]) -> Value | None:
        """What the prepared datasets or models of a name say about their sources.

        Args:
            kind: `dataset` or `model`.
            name: The entry's name.
            read: Takes from the entry that an input was made from what is asked for.

        Returns:
            The one value that this study's inputs have, or else the one that the store's have.
        """
        for entries in self._entries(kind, name):
            values = []
            for entry in entries:
                value = read(entry)
                if value is not None and value not in values:
                    values.append(value)
            if values:
                return values[0] if len(values) == 1 else None
        return None

    def _entries(self, kind: str, name: str) -> list[list[dict]]:
        """The entries that inputs were made from: first this study's, then the store's."""
        if (kind, name) not in self._records:
            pattern = store.input_place(kind, name, "*")
            own = sorted((self._root / self._results).glob(pattern))
            places = [own, store.Store(self._root).find_all(pattern)]
            self._records[kind, name] = [_made_from(files, kind) for files in places]
        return self._records[kind, name]


def _made_from(files: Iterable[Path], kind: str) -> list[dict]:
    """The entry that each prepared dataset or model was made from."""
    entries = []
    for file in files:
        try:
            entries.append(result.read(file)["request"][kind])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a broken link, or only part of a file
    return entries
