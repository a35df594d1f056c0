"""What the files of datasets and models hold, for their requests.

The content of a file decides what is prepared from it, so a request has the SHA-256 of every file
that an entry reads from a folder. An entry's own `sha256` is a check (`data/sources.py`): with or
without it, the request is the same.

A machine need not have the files: results stay valid where only `results/` was copied. Such a file
has the digest that the entry gives, or else the one that the prepared dataset or model was made
from. If neither is known, the digest is None, and no job that reads the file starts.

Standard library only: the Snakefile imports this module.
"""

from collections.abc import Iterable
from pathlib import Path

from rankwise.core import content, result
from rankwise.core.config import without
from rankwise.core.input_files import MODEL_FILES, WEIGHTS
from rankwise.core.paths import INPUTS, RESULTS, expand


class SourceDigests:
    """The digests of the files that entries name; each file is hashed once.

    Args:
        root: The project's folder.
        results: Folders of results. The prepared inputs in them record what they were made from;
            the first that has a record decides.
    """

    def __init__(self, root: Path, results: Iterable[Path]):
        self._root = root
        self._results = tuple(results)
        self._sha256_by_file: dict[Path, str | None] = {}
        self._records: dict[tuple[str, str], dict] = {}

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
        made_from = self._record("dataset", name)
        recorded = made_from.get("splits", {}).get(split, {})
        is_same_file = (
            made_from.get("files", {}).get("folder") == folder
            and recorded.get("path") == source["path"]
        )
        return recorded.get("sha256") if is_same_file else None

    def _model_files(self, name: str, weights: dict) -> dict[str, str] | None:
        if self._sha256(weights["files"], WEIGHTS):
            digests = {file: self._sha256(weights["files"], file) for file in MODEL_FILES}
            return {file: sha256 for file, sha256 in digests.items() if sha256}
        recorded = self._record("model", name).get("weights", {})
        return recorded.get("contents") if without(recorded, ("contents",)) == weights else None

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

    def _record(self, kind: str, name: str) -> dict:
        """The entry that a prepared dataset or model was made from; empty if there is none."""
        if (kind, name) not in self._records:
            self._records[kind, name] = self._read_record(kind, name)
        return self._records[kind, name]

    def _read_record(self, kind: str, name: str) -> dict:
        relative = INPUTS.relative_to(RESULTS) / f"{kind}s" / name / f"{kind}.json"
        for results in self._results:
            try:
                return result.read(results / relative)["request"][kind]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not there, or only part of a file
        return {}
