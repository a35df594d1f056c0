"""Files of results, wherever they lie: in a store, in a study's folder, in another clone.

A file is read whole and checked, and only what the commands need of it is kept, since a store may
hold thousands of results. Standard library only.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rankwise.core import provenance, sealed, store
from rankwise.core.compare import TIMED
from rankwise.core.files import PART
from rankwise.core.input_files import recorded_files
from rankwise.core.store_parts import DAMAGED, DIFFERS
from rankwise.study.measurements import FOLDERS, MEASUREMENTS, PREDICT

# Names of the files that are results, without `.json`.
STEMS = frozenset(
    {*FOLDERS, *MEASUREMENTS, PREDICT, *store.FILE_NAMES.values(), "dataset", "model"}
)
DIGEST = re.compile(rf"[0-9a-f]{{{provenance.DIGEST_LENGTH}}}")
# The names that a request gives parts of a place. Others could lead out of the store.
SAFE_NAME = re.compile(r"[^/\x00-\x1f]*[^/.\x00-\x1f][^/\x00-\x1f]*")


class Stored(NamedTuple):
    """A result's file, and what it says.

    Attributes:
        file: The file, without links in its path.
        place: Where its result lies in a store.
        digest: Of the request that it answers.
        status: `ok`, or why there are no numbers.
        is_timed: Whether it measures times, so that no two results of its request agree.
        data_files: Name -> recorded SHA-256 of each file that belongs beside it.
        sha256: Of the file.
    """

    file: Path
    place: str
    digest: str
    status: str
    is_timed: bool
    data_files: dict[str, str]
    sha256: str


class OlderResult(store.StoreError):
    """A result that nothing can check. No study of this release plans it."""


def read(file: Path) -> Stored:
    """Read and check a file that is named like a result.

    Raises:
        OlderResult: The file is a result of an older release, which has no digest of its content.
        StoreError: The file cannot be read, is no result of Rankwise, or answers another request
            than the digest says that its folder is named by.
    """
    try:
        data = file.read_bytes()
        found = sealed.content(data, file)
    except OSError as error:
        raise _no_result(file, error.strerror or str(error)) from None
    except sealed.Damaged as error:
        if sealed.is_of_older_release(data):
            raise OlderResult(
                f"{file}: got a result of an older release, whose content has no digest, allowed: "
                "results of this release; `rankwise store remove --unplanned` removes it"
            ) from None
        raise _no_result(file, str(error).removeprefix(f"{file}: ")) from None
    try:
        request = found["request"]
        digest = provenance.digest_of_read(request)
        place = store.place(request, digest)
        data_files = recorded_files(found)
        measurement = request.get("measurement")
    except (KeyError, TypeError, AttributeError):
        raise _no_result(file, "it holds no request of Rankwise") from None
    names = [*place.split("/"), *(part for name in data_files for part in name.split("/"))]
    if not all(SAFE_NAME.fullmatch(str(name)) for name in names):
        raise _no_result(file, "its request holds a name that is no name of a folder")
    if Path(place).name != file.name:
        raise _no_result(file, f"its request is of a {Path(place).name}")
    folder = result_digest(file.parent)
    if folder and folder != digest:
        raise _no_result(file, f"it answers request {digest}, but its folder is named {folder}")
    status = found.get("status", "ok")
    content = hashlib.sha256(data).hexdigest()
    return Stored(file, place, digest, status, measurement in TIMED, data_files, content)


def result_digest(folder: Path) -> str | None:
    """The digest that a result's folder is named by; None in the older layout, which had none."""
    name = folder.name.partition(DIFFERS)[0].partition(DAMAGED)[0]
    return name if DIGEST.fullmatch(name) else None


def part_digest(folder: Path) -> str | None:
    """The digest of the request that an unfinished folder is for."""
    name = folder.name.removeprefix(PART).partition("-")[0].partition(DIFFERS)[0]
    return name if DIGEST.fullmatch(name) else None


def _no_result(file: Path, problem: str) -> store.StoreError:
    return store.StoreError(
        f"{file}: got no whole result: {problem}. Allowed: results of Rankwise; "
        "move the file elsewhere, or copy it again"
    )


def is_second(file: Path) -> bool:
    """Whether a file is the second, different result of a request, which was kept."""
    return DIFFERS in file.parent.name


def is_damaged(file: Path) -> bool:
    """Whether a file was set aside, because it was not as it was written."""
    return DAMAGED in file.parent.name


# Folders ------------------------------------------------------------------------------------------


@dataclass
class Files:
    """The contents of folders of results.

    Attributes:
        results: Files that are named like results.
        seconds: Those among folders that hold a second result.
        damaged: Those that were set aside.
        others: Files that are not named like results. Data files of results are among them.
        parts: Folders that a job has not finished.
        dangling: Links that lead to no file.
        real: Each file -> the same without links in its path.
    """

    results: list[Path] = field(default_factory=list)
    seconds: list[Path] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    real: dict[Path, Path] = field(default_factory=dict)


def files(folder: Path) -> Files:
    """The files in the parts of a folder that hold results.

    Args:
        folder: A store, or a study's folder. What else it holds is not looked at.
    """
    found = Files()
    visited: set[tuple[int, int]] = set()
    for part in store.PARTS:
        if (folder / part).is_dir():
            _read_folder(folder / part, Path(os.path.realpath(folder / part)), visited, found)
    return found


def _read_folder(folder: Path, real: Path, visited: set[tuple[int, int]], found: Files) -> None:
    """Sort everything below a folder into `found`; what is hidden counts only if it is a part.

    Args:
        folder: The folder.
        real: The same without links in its path.
        visited: Device and inode of folders; none is visited twice, so a circle of links ends.
        found: What was found.
    """
    facts = real.stat()
    if (facts.st_dev, facts.st_ino) in visited:
        return
    visited.add((facts.st_dev, facts.st_ino))
    with os.scandir(real) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path, real_path = folder / entry.name, real / entry.name
        if entry.is_symlink():
            real_path = Path(os.path.realpath(real_path))
        if entry.is_dir() and not entry.name.startswith("."):
            _read_folder(path, real_path, visited, found)
        elif entry.is_dir() and entry.name.startswith(PART):
            found.parts.append(path)
        elif not entry.name.startswith("."):
            found.real[path] = real_path
            _sort_in(path, is_there=not entry.is_symlink() or real_path.exists(), found=found)


def _sort_in(file: Path, is_there: bool, found: Files) -> None:
    if not is_there:
        found.dangling.append(file)
    elif file.suffix != ".json" or file.stem not in STEMS:
        found.others.append(file)
    elif is_second(file):
        found.seconds.append(file)
    elif is_damaged(file):
        found.damaged.append(file)
    else:
        found.results.append(file)


def foreign(found: Files, results: Iterable[Stored]) -> list[Path]:
    """The files that belong to no result.

    Args:
        found: What lies in a folder.
        results: The results in it.
    """
    known = {result.file.parent / name for result in results for name in result.data_files}
    folders_aside = {file.parent for file in (*found.seconds, *found.damaged)}
    return [
        file
        for file in found.others
        if found.real[file] not in known and folders_aside.isdisjoint(file.parents)
    ]


def size_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; links count nothing."""
    total = 0
    for current, _, names in os.walk(folder):
        for name in names:
            file = Path(current, name)
            if not file.is_symlink():
                total += file.stat().st_size
    return total
