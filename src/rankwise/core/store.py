"""The store: every result under the digest of its request.

    results/store/version.json                                                the layout
    results/store/runs/MODEL/DATASET/METHOD/rRANK/seedSEED/DIGEST/train.json  one result
    results/store/runs/MODEL/DATASET/METHOD/rRANK/seedSEED/DIGEST/adapter/    its kept weights
    results/store/inputs/datasets/NAME/DIGEST/dataset.json                    with its data files

The digest stands in the path, so a result is there or it is not: no record and no time stamp can
say anything else. A study has links to the results that it plans (`study/links.py`). Snakemake sees
and deletes only those links; what is in the store stays until `rankwise store remove` takes it out.

A job computes in a folder of its own, `.part-DIGEST-PROCESS`, and renames it when all files are in
it, so the store never holds half a result. Meanwhile it holds a lock on the digest: of two jobs for
one request, in one clone or in two that share a store, the second waits and finds the result.

Nothing in a store is overwritten. Some network file systems have no locks, so a result may be there
when a job has computed it a second time. A second result that is the same in all but times is
dropped. Another one is kept beside the first, as `DIGEST.differs-1`, and its job fails.

`RANKWISE_STORE` names the folder to use instead of `results/store`. Further folders behind it,
separated like the folders of PATH, are read and never written.

All files in a store have one modification time, because times must decide nothing: Snakemake would
rerun a job whose input is newer than its output.

Standard library only: the Snakefile imports this module.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from rankwise.core import provenance, sealed, settings
from rankwise.core.files import NO_ROOM, durable_write, part_of, sync_folder
from rankwise.core.paths import RESULTS
from rankwise.core.store_parts import (
    VARIABLE,
    StoreError,
    lock,
    put,
    remove_abandoned,
    said_in_one_sentence,
)

DEFAULT = RESULTS / "store"
VERSION = 1
VERSION_FILE = "version.json"
LOCKS = ".locks"
# The modification time of every file in a store and of every link to one: 1 January 2000, in ns.
TIME_NS = 946_684_800_000_000_000
# Measurement -> its folder. All others are profiles.
FOLDERS = {"train": "runs", "trial": "search", "choose": "search", "evaluate": "evaluations"}
PROFILES, INPUTS = "profiles", "inputs"
# Folders of a store that hold results.
PARTS = (INPUTS, "search", "runs", PROFILES, "evaluations")
KEPT = ("adapter", "merged")  # folders of kept weights beside a training run
# Measurement -> stem of its result, where that differs.
FILE_NAMES = {"choose": "selected", "evaluate": "evaluation"}


# Where a result lies ------------------------------------------------------------------------------


def cell_folder(names: Mapping[str, object]) -> str:
    """The part of a path that names a cell: `MODEL/DATASET/METHOD/rRANK[/TRIAL][/seedSEED][/TASK]`.

    Args:
        names: The cell as a request has it: only what it has a value for.
    """
    parts = [names["model"], names["dataset"], names["method"], f"r{names['rank']}"]
    if "trial" in names:
        parts.append(names["trial"])
    if "seed" in names:
        parts.append(f"seed{names['seed']}")
    if "evaluation" in names:
        parts.append(names["evaluation"])
    return "/".join(map(str, parts))


def place(request: dict, digest: str | None = None) -> str:
    """The file of a request's result, relative to a store.

    Args:
        request: The request.
        digest: Its digest, if that is known.
    """
    digest = digest or provenance.digest(request)
    if "cell" not in request:
        kind = "model" if "model" in request else "dataset"
        return input_place(kind, request["name"], digest)
    return cell_place(request["measurement"], request["cell"], digest)


def cell_place(measurement: str, names: Mapping[str, object], digest: str) -> str:
    """The file of a cell's result, relative to a store.

    Args:
        measurement: `train`, `trial`, `choose`, or the name of a profile.
        names: The cell as a request has it.
        digest: Of the request.
    """
    folder = FOLDERS.get(measurement, PROFILES)
    stem = FILE_NAMES.get(measurement, measurement)
    return f"{folder}/{cell_folder(names)}/{digest}/{stem}.json"


def input_place(kind: str, name: str, digest: str) -> str:
    """The description of a prepared `dataset` or `model`, relative to a store."""
    return f"{INPUTS}/{kind}s/{name}/{digest}/{kind}.json"


# The store ----------------------------------------------------------------------------------------


def folders(root: Path) -> tuple[Path, ...]:
    """The store's folders, the one that is written to first; they need not be there."""
    named = [part for part in settings.read(VARIABLE).split(os.pathsep) if part]
    return tuple(root / Path(name).expanduser() for name in named or [DEFAULT])


class Store:
    """The folder that results are written to, and further folders that they are read from.

    Args:
        root: The project's folder.

    Attributes:
        folders: The store's folders; the first is the one that is written to.

    Raises:
        StoreError: a folder is of a newer version, or is no store.
    """

    def __init__(self, root: Path = Path()):
        self.folders = folders(root)
        for folder in self.folders:
            check_version(folder)
        for folder in self.folders[1:]:
            if not folder.is_dir():
                raise StoreError(f"{VARIABLE}: got {folder}, allowed: folders that exist")

    @property
    def folder(self) -> Path:
        """The folder that is written to."""
        return self.folders[0]

    def find(self, place: str) -> Path | None:
        """The file of a result in the first folder that has it, or None.

        Args:
            place: As `place` gives it.
        """
        for folder in self.folders:
            file = folder / place
            if file.is_file():
                return file
        return None

    def find_all(self, pattern: str) -> list[Path]:
        """Files of results in all folders, those of the first folder first.

        Args:
            pattern: A place in which `*` stands for any name.
        """
        return [file for folder in self.folders for file in sorted(folder.glob(pattern))]

    def check_writable(self) -> None:
        """Check that a result could be written.

        Raises:
            StoreError: The folder, or the nearest one above it, cannot be written.
        """
        above = self.folder
        while not above.exists():
            above = above.parent
        if not os.access(above, os.W_OK):
            raise StoreError(
                f"{self.folder}: cannot be written, allowed: a folder that can; "
                f"set {VARIABLE} to another one, and this one behind it to read it"
            )

    @contextlib.contextmanager
    def locked(self, digest: str, wait: bool = True) -> Iterator[None]:
        """Hold the lock on a digest.

        Args:
            digest: Of a request.
            wait: If another process holds the lock, say so and wait.

        Raises:
            StoreBusyError: Another process holds the lock, and `wait` is False.
            StoreError: The store cannot be written.
        """
        with said_in_one_sentence(self.folder):
            _create(self.folder)
            stream = lock(self.folder / LOCKS / digest, wait)
        try:
            yield
        finally:
            Path(stream.name).unlink(missing_ok=True)  # before it is released, see `lock`
            stream.close()

    @contextlib.contextmanager
    def part(self, place: str) -> Iterator[Path]:
        """A folder to write a result's files to. At the end it is moved to its place.

        A job that computes a result holds the lock on its digest meanwhile. If the block raises,
        the folder is removed, and the store is as before.

        Raises:
            StoreError: The store cannot be written, or it has another result at this place by the
                end of the block; both are kept.
        """
        final = (self.folder / place).parent
        with said_in_one_sentence(self.folder):
            _create(self.folder)
            final.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(final)
            part = part_of(final)
            part.mkdir()
        try:
            with said_in_one_sentence(self.folder, NO_ROOM):
                yield part
            with said_in_one_sentence(self.folder):
                set_times(part)
                sync_folder(part)
                put(part, final, Path(place).name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def set_times(folder: Path) -> None:
    """Give every file in a folder the store's one modification time."""
    for file in folder.rglob("*"):
        if file.is_file():
            os.utime(file, ns=(TIME_NS, TIME_NS))


def check_answers(file: Path, digest: str) -> dict:
    """The result in a file of the store, if it answers the request with this digest.

    Raises:
        StoreError: The file is no result, is not as it was written, or answers another request.
    """
    try:
        content = sealed.read(file)
        answered = provenance.digest_of_read(content["request"])
        problem = None if answered == digest else f"it answers request {answered}"
    except OSError as error:
        problem = error.strerror or str(error)
    except sealed.Damaged as error:
        problem = str(error).removeprefix(f"{file}: ")
    if problem:
        raise StoreError(
            f"{file}: {problem}; allowed: a result of request {digest}, as it was written; "
            "run snakemake again, which sets the file aside and makes the result anew"
        )
    return content


# Links --------------------------------------------------------------------------------------------


def link(file: Path, output: Path, root: Path = Path()) -> None:
    """Make `output` a link to a file of the store, and replace what was there.

    Args:
        file: The file of a result.
        output: The link.
        root: The project's folder. A link to a file in it is relative, so that it stays right in a
            copy of the project.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    target = _absolute(file)
    if Path(target).is_relative_to(_absolute(root)):
        target = os.path.relpath(target, _absolute(output.parent))
    part = part_of(output)
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    os.utime(part, ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    part.replace(output)


def link_result(file: Path, content: dict, output: Path, root: Path = Path()) -> None:
    """Make `output` a link to a result, and link the folder of its kept weights beside it.

    Args:
        file: The file of the result in the store.
        content: What it says.
        output: The link.
        root: The project's folder.
    """
    kept = content.get("weights", {}).get("kind")
    if kept:
        link(file.with_name(kept), output.with_name(kept), root)
    link(file, output, root)


def unlink_result(output: Path) -> None:
    """Remove the link to a result, and those to its kept weights."""
    for beside in map(output.with_name, KEPT):
        if beside.is_symlink():
            beside.unlink()
    output.unlink(missing_ok=True)


def _absolute(path: Path) -> str:
    """A path without `..`. Links are not followed: the store may be a link to another disk."""
    return os.path.abspath(path)  # noqa: PTH100


# Parts --------------------------------------------------------------------------------------------


def check_version(folder: Path) -> None:
    """Check that a folder is a store of this version, or empty, or not there yet."""
    file = folder / VERSION_FILE
    if not file.is_file():
        has_files = folder.is_dir() and any(
            not path.name.startswith(".") for path in folder.iterdir()
        )
        if not has_files:
            return
        # Another job may have made the store after the first look: the version comes first in it.
        if not file.is_file():
            raise StoreError(
                f"{folder}: got a folder without {VERSION_FILE}, allowed: a store, or an empty "
                "folder"
            )
    try:
        version = json.loads(file.read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f'{file}: got something else, allowed: {{"version": {VERSION}}}') from None
    if version != VERSION:
        raise StoreError(
            f"{file}: version: got {version}, allowed: {VERSION}; use the release of Rankwise that "
            f"made this store, or set {VARIABLE} to another folder"
        )


def _create(folder: Path) -> None:
    """Create the store, unless it is there."""
    (folder / LOCKS).mkdir(parents=True, exist_ok=True)
    file = folder / VERSION_FILE
    if not file.is_file():
        with durable_write(file) as part:
            part.write_text(json.dumps({"version": VERSION}), encoding="utf-8")
