"""Models and data that a study names by their place, without an entry.

`model: path/to/model`, `models: [owner/name@REVISION]` and `data: reviews.csv` stand for the
entries that `rankwise add model` and `rankwise add dataset` would write. Planning loads no torch,
and the readers of data are above this package; so the command itself derives the entry, in a
process of its own. What it says is kept in `results/.cache/entries`, by the content of the files
and the sources that derive: no planning after the first one waits for it. The folder may be deleted
at any time.

Standard library only: the Snakefile imports this module.
"""

import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rankwise.core import content, entry_files, paths, provenance
from rankwise.core.config import SHORT, ConfigError, pick
from rankwise.core.schemas import check

CACHE = paths.CACHE / "entries"
KINDS = {"models": "model", "datasets": "dataset"}  # key of a grid -> what `rankwise add` adds
# What derives an entry: its sources decide what a remembered entry is.
DERIVERS = {"models": "rankwise.models.derive", "datasets": "rankwise.data.propose"}
REVISION = re.compile(r"(?P<repository>[^@]+/[^@]+)@(?P<revision>[0-9a-f]{40})")
# Files of a folder that an entry follows from; a model's weights in other formats are not read.
READ_SUFFIXES = {
    "models": (".json", ".safetensors", ".txt", ".model"),
    "datasets": (
        *(".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", ".txt", ".text"),
        *(".raw", ".gz", ".tar", ".tgz", ".bz2", ".xz"),
    ),
}


def resolve(
    study: dict, library: dict[str, dict], root: Path, file: str
) -> tuple[dict, dict[str, dict]]:
    """Replace each place that the study names by the name of a derived entry.

    Args:
        study: The checked study; every grid has `models` and `datasets`.
        library: Checked entries by kind and name.
        root: The project's folder.
        file: The study's file, for messages.

    Returns:
        The study, and the library with the derived entries behind the others.

    Raises:
        ConfigError: Nothing is at the place, or no entry can be derived from it.
    """
    for plural, short in SHORT.items():
        if short in study and not _is_place(plural, study[short], root):
            pick(library[plural], study[short], file, short)
    names: dict[tuple[str, str], str] = {}  # (models or datasets, place) -> the entry's name
    library = dict(library)
    for plural, place, key in _places(study, library, root):
        if (plural, place) not in names:
            name, entry = _derived(plural, place, root, (file, key))
            names[plural, place] = name = _free_name(library[plural], name, entry)
            library[plural] = {**library[plural], name: entry}
    if not names:
        return study, library
    replaced = dict(study)
    for kind in ("train", "profile", "evaluate"):
        replaced[kind] = [_renamed(grid, names) for grid in study[kind]]
    return replaced, library


def _places(study: dict, library: dict, root: Path) -> Iterator[tuple[str, str, str]]:
    """(models or datasets, place, key in the study) of each name that is a place."""
    for kind in ("train", "profile"):
        for number, grid in enumerate(study[kind]):
            for plural, short in SHORT.items():
                for name in grid[plural]:
                    if name not in library[plural] and _is_place(plural, name, root):
                        is_short = study.get(short) == name
                        yield plural, name, short if is_short else f"{kind}.{number}.{plural}"


def _is_place(plural: str, name: str, root: Path) -> bool:
    """Whether a name that no entry has is meant as a file, a folder or a repository."""
    if any(mark in name for mark in "/@$") or name.startswith("."):
        return True
    return Path(name).suffix in READ_SUFFIXES[plural] or (root / name).exists()


def _free_name(entries: dict, name: str, entry: dict) -> str:
    """The name of a derived entry; another one if an entry of the library has it."""
    while name in entries and entries[name] != entry:
        name = f"{name}_own"
    return name


def _renamed(grid: dict, names: dict[tuple[str, str], str]) -> dict:
    changed = {
        plural: list(dict.fromkeys(names.get((plural, name), name) for name in grid[plural]))
        for plural in KINDS
        if plural in grid
    }
    return {**grid, **changed}


# Deriving -----------------------------------------------------------------------------------------


def _derived(plural: str, place: str, root: Path, where: tuple[str, str]) -> tuple[str, dict]:
    """The name and the checked entry of a place; remembered from an earlier planning, or derived.

    Args:
        plural: `models` or `datasets`.
        place: As the study has it.
        root: The project's folder.
        where: File and key of the study.
    """
    arguments, contents = _arguments(plural, place, root, where)
    identity = {"place": place, "contents": contents, "code": _code(plural)}
    note = root / CACHE / f"{provenance.digest(identity)}.json"
    answer = _remembered(note)
    if answer is None:
        answer = _ask(plural, place, arguments, root, where)
        written = {"answer": answer, "digest": provenance.digest(answer)}
        with suppress(OSError):  # a full or read-only disk costs time only
            entry_files.write_whole(note, json.dumps(written, indent=1))
    name, entry = answer["name"], answer["entry"]
    file = entry_files.file_of(plural)
    return name, check({name: entry}, paths.SCHEMAS / f"{plural}.schema.yaml", file)[name]


def _remembered(note: Path) -> dict | None:
    """An earlier answer; None without one, or if it is not as it was written."""
    try:
        written = json.loads(note.read_text(encoding="utf-8"))
        answer = written["answer"]
        return answer if written["digest"] == provenance.digest_of_read(answer) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _arguments(
    plural: str, place: str, root: Path, where: tuple[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The arguments of the command, and the SHA-256 of each file that decides its answer."""
    try:
        path = root / paths.expand(place)
    except FileNotFoundError as error:
        raise ConfigError(*where, place, f"a place on this machine ({error})") from None
    if path.is_file() and plural == "datasets":
        return [place], {path.name: content.sha256(path, root)}
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.is_file()]
        read = [file for file in files if file.suffix in READ_SUFFIXES[plural]]
        return [place], {file.name: content.sha256(file, root) for file in read}
    hub = REVISION.fullmatch(place) if plural == "models" else None
    if hub:
        return [hub["repository"], "--revision", hub["revision"]], {}
    if plural == "datasets":
        allowed = "a file or folder that is there, or the name of an entry in config/datasets.yaml"
    else:
        allowed = (
            "a folder that is there, a repository on the hub with its revision (owner/name@ and "
            "40 hexadecimal digits), or the name of an entry in config/models.yaml"
        )
    nearest = difflib.get_close_matches(path.name, _names_beside(path), n=1)
    hint = f" (nearest: {nearest[0]!r})" if nearest else ""
    raise ConfigError(*where, place, allowed + hint)


def _names_beside(path: Path) -> list[str]:
    """The names in the folder of a file that is not there; none without that folder."""
    folder = path.parent
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


def _code(plural: str) -> dict[str, str]:
    """Digests of the sources that derive an entry."""
    closure = sorted(provenance.source_closure(DERIVERS[plural]))
    return {name: provenance.code_digest(paths.module_file(name)) for name in closure}


def _ask(plural: str, place: str, arguments: list[str], root: Path, where: tuple[str, str]) -> dict:
    """The answer of `rankwise add ... --print --json`."""
    kind = KINDS[plural]
    command = [sys.executable, "-m", "rankwise.cli.main", "add", kind, *arguments]
    found = [str(paths.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [*command, "--print", "--json"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    said = (done.stderr.strip().splitlines() or ["nothing"])[-1].removeprefix("rankwise: ")
    allowed = f"what `rankwise add {kind}` can read; it says: {said}"
    if "--" in said:
        allowed += f"; give the option to `rankwise add {kind} {place}`, and name its entry here"
    raise ConfigError(*where, place, allowed)
