"""Whether a table, a figure or a text is as planned: what it was made from, by content.

Two small files stand for each document, in `.documents/` of its study's folder:

- `{name}.made.json`, written by the job that made it: the digest of the request that it answered,
  a digest of the contents of all files that it read, and the SHA-256 of each file that it wrote.
- `{name}.planned.json`, written by planning (`study/settle.py`) and an input of the job. It is
  newer than the document exactly if the document is not as planned, so Snakemake makes it anew.
  This holds also where Snakemake's own records are lost, where a copy has changed the times of
  files, and where somebody has edited a table.

Standard library only: the Snakefile imports this module.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from rankwise.core import provenance, result
from rankwise.core.sealed import Damaged

FOLDER = ".documents"
Made = dict[str, object]
Sha256 = Callable[[Path], str]


def planned_file(results: str, name: str) -> str:
    """The file that planning writes.

    Args:
        results: The study's folder of results, relative to the project.
        name: The document's first file in it, such as `tables/runs.csv`.
    """
    return f"{results}/{FOLDER}/{name}.planned.json"


def made_file(results: str, name: str) -> str:
    """The file that the job writes; arguments as in `planned_file`."""
    return f"{results}/{FOLDER}/{name}.made.json"


def contents(
    paths: Iterable[str], root: Path = Path(), sha256: Sha256 = provenance.file_sha256
) -> str | None:
    """A digest of the contents of files, with their paths; None if one is not there.

    Args:
        paths: The files, relative to the project.
        root: The project's folder.
        sha256: Gives the SHA-256 of a file; who asks for many documents remembers it.
    """
    found = []
    for path in paths:
        try:
            found.append([path, sha256(root / path)])
        except FileNotFoundError:
            return None
    return provenance.digest(found)


def made(request: dict, root: Path = Path()) -> Made:
    """The recorded inputs of a document; empty if they are not known."""
    return _read_note(root / made_file(*request["document"]))


def _read_note(file: Path) -> Made:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def wanted(request: dict, root: Path = Path(), sha256: Sha256 = provenance.file_sha256) -> Made:
    """What a document would be made from now, and what its files hold.

    Args:
        request: The document's request: `document` is its study's folder and its name, `reads` are
            the files that it is made from, `writes` are its own.
        root: The project's folder.
        sha256: As in `contents`.

    Returns:
        `request` and `inputs`, two digests; `files`, file -> SHA-256, or None if it is not there.
    """
    files = {
        path: sha256(root / path) if (root / path).is_file() else None for path in request["writes"]
    }
    return {
        "request": provenance.digest(request),
        "inputs": contents(request["reads"], root, sha256),
        "files": files,
    }


def check_reads(request: dict, root: Path = Path()) -> None:
    """Check that tables and figures which a document is made from are as their jobs wrote them.

    Args:
        request: The document's request.
        root: The project's folder.

    Raises:
        Damaged: One was changed since.
    """
    folder = root / request["document"][0] / FOLDER
    written: dict[str, str] = {}
    for note_file in folder.rglob("*.made.json"):
        written |= _read_note(note_file).get("files", {})
    for path in request["reads"]:
        recorded = written.get(path)
        found = provenance.file_sha256(root / path) if recorded else None
        if found != recorded:
            raise Damaged(
                f"{path}: it was edited: sha256 is {found}, allowed: {recorded}, as its job wrote "
                "it; run snakemake again, which makes it anew"
            )


def forget(request: dict) -> None:
    """Before a document is made anew: what is known of the old one no longer holds."""
    Path(made_file(*request["document"])).unlink(missing_ok=True)


def note(request: dict) -> None:
    """Write down what a document was made from."""
    result.write_json(Path(made_file(*request["document"])), wanted(request))
