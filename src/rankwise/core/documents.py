"""Whether a table, a figure or a text is as planned: what it was made from, by content.

Two small files stand for each document, in `.documents/` of its study's folder:

- `{name}.made.json`, written by the job that made it: the digest of the request that it answered,
  and a digest of the contents of all files that it read.
- `{name}.planned.json`, written by planning (`study/settle.py`) and an input of the job. It is
  newer than the document exactly if the document is not as planned, so Snakemake makes it anew.
  This holds also where Snakemake's own records are lost, and where a copy has changed the times of
  files.

Standard library only: the Snakefile imports this module.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import provenance, result

FOLDER = ".documents"
Made = dict[str, str | None]


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


def contents(paths: Iterable[str], root: Path = Path()) -> str | None:
    """A digest of the contents of files, with their paths; None if one is not there.

    Args:
        paths: The files, relative to the project.
        root: The project's folder.
    """
    found = []
    for path in paths:
        try:
            found.append([path, provenance.file_sha256(root / path)])
        except FileNotFoundError:
            return None
    return provenance.digest(found)


def made(request: dict, root: Path = Path()) -> Made:
    """What a document was made from; empty if that is not known."""
    try:
        text = (root / made_file(*request["document"])).read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, ValueError):
        return {}


def wanted(request: dict, root: Path = Path()) -> Made:
    """What a document would be made from now.

    Args:
        request: The document's request: `document` is its study's folder and its name, `reads` are
            the files that it is made from.
        root: The project's folder.
    """
    return {
        "request": provenance.digest(request),
        "inputs": contents(request["reads"], root),
    }


def forget(request: dict) -> None:
    """Before a document is made anew: what is known of the old one no longer holds."""
    Path(made_file(*request["document"])).unlink(missing_ok=True)


def note(request: dict) -> None:
    """Write down what a document was made from."""
    result.write_json(Path(made_file(*request["document"])), wanted(request))
