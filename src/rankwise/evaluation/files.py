"""The documents of an evaluation that reads files, after a check of each file's content."""

import hashlib

from rankwise.core import content
from rankwise.core.paths import expand
from rankwise.data import evaluation_documents


def documents(entry: dict, use: str) -> list[dict]:
    """The documents of a file of the entry.

    Args:
        entry: Of the evaluation, with the SHA-256 of its files.
        use: `test` or `few_shot`.

    Raises:
        FileNotFoundError: The file is not there, or a variable of its folder is not set.
        ValueError: It is not the planned file, or not of its form.
    """
    files = entry["files"]
    file = expand(files["folder"]) / files[use]["path"]
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not there; allowed: the file of files.{use} of the entry")
    difference = content.difference(file, files[use]["sha256"])
    if difference:
        raise ValueError(f"{file}: {difference}, which the study was planned with; plan it again")
    return evaluation_documents.read(file, files["form"], use)


def digest(text: str) -> str:
    """16 hexadecimal digits that tell an example from others."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
