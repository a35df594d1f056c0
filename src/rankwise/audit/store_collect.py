"""`rankwise collect`: add the results that other folders have to this project's store.

A result says itself where it belongs, because it holds its request. So everything is added,
whatever a study plans, and results of the older layout too, which had one file a cell and no digest
in its path. A result that is in several places must be the same everywhere in all but times, or as
near as two kinds of CPU give it (core/compare.py); of two that differ so, and of two that measure
times, the first stays. All folders are read and checked before the first file is
copied. Standard library only.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rankwise.audit import stored
from rankwise.audit.stored import Stored
from rankwise.core import compare, provenance, store
from rankwise.core.config import ConfigError
from rankwise.core.paths import RESULTS
from rankwise.core.store import Store, StoreError
from rankwise.core.store_parts import disagreement

COMMAND = "rankwise collect"


@dataclass
class Source:
    """A folder that results are taken from.

    Attributes:
        name: What the user calls it.
        roots: Its stores and folders of studies.
        added: Places of results that are taken from it.
        same: Places of results that the store has, or that another folder gave.
        timed: Places of results that measure times, where the store or another folder has others.
        notes: Sentences on what was left where it is.
    """

    name: str
    roots: list[Path]
    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect(folders: Iterable[str], root: Path, dry_run: bool = False) -> dict:
    """Add what folders have to the store of the project at `root`.

    Args:
        folders: Other clones, their results/ folders, or stores. It may be this project itself, for
            results that are not in its store.
        root: The project's folder.
        dry_run: Copy nothing.

    Returns:
        `store`: the folder that was added to; `added_bytes`; `folders`: what became of the results
        of each (`Source`, without `roots`).

    Raises:
        ConfigError: a folder has no results, or is named twice.
        StoreError: a file is no whole result, two results disagree, or the store cannot be written.
    """
    own = Store(root)
    sources = _sources(folders)
    chosen = _Choice(own)
    for source in sources:
        for result in _results(source):
            chosen.add(result, source)
    taken = chosen.checked()
    added_bytes = sum(_size_bytes(result) for result in taken)
    if taken and not dry_run:
        _check_room(own, added_bytes)
        for result in taken:
            _copy(result, own)
    return {
        "store": str(own.folder),
        "dry_run": dry_run,
        "added_bytes": added_bytes,
        "folders": [_summary(source) for source in sources],
    }


def _summary(source: Source) -> dict:
    return {
        "name": source.name,
        "added": source.added,
        "same": source.same,
        "timed": source.timed,
        "notes": source.notes,
    }


# Where to look ------------------------------------------------------------------------------------


def _sources(folders: Iterable[str]) -> list[Source]:
    by_folder: dict[Path, Source] = {}
    for name in folders:
        folder = _existing(name)
        if folder in by_folder:
            allowed = f"each once; {by_folder[folder].name} is the same"
            raise ConfigError(COMMAND, "DIR", name, allowed)
        by_folder[folder] = Source(name, _roots(folder, name))
    return list(by_folder.values())


def _existing(name: str) -> Path:
    """The folder of results in a folder that a user names."""
    try:
        folder = Path(name).expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:  # before Python 3.13, a circle of links
        reason = getattr(error, "strerror", None) or "a loop of links"
        raise ConfigError(COMMAND, "DIR", name, f"{_allowed()} ({reason})") from None
    results = folder / RESULTS
    return results.resolve() if results.is_dir() else folder


def _roots(folder: Path, name: str) -> list[Path]:
    """The stores and folders of studies in a folder of results; stores come first.

    Raises:
        ConfigError: There are none.
        StoreError: A store is of another version.
    """
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    roots = []
    for path in (folder, *inside):
        is_store = (path / store.VERSION_FILE).is_file()
        if is_store:
            store.check_version(path)
        if is_store or any((path / part).is_dir() for part in store.PARTS):
            roots.append((not is_store, path))
    is_clone = (folder / "config/methods.yaml").is_file()
    is_empty_results = (folder.parent / "config/methods.yaml").is_file()
    if not roots and not is_clone and not is_empty_results:
        raise ConfigError(COMMAND, "DIR", name, _allowed())
    return [path for _, path in sorted(roots)]


def _allowed() -> str:
    parts = f"{', '.join(store.PARTS[:-1])} or {store.PARTS[-1]}"
    return f"a clone of Rankwise, its {RESULTS}/ folder, or a store, with {parts} in it"


def _results(source: Source) -> list[Stored]:
    """Every result of a source, each file once. What is left where it is becomes a note.

    Raises:
        StoreError: A file is no whole result, or belongs to none.
    """
    results: dict[Path, Stored] = {}
    seconds: set[Path] = set()
    older: list[Path] = []
    dangling = 0
    for root in source.roots:
        found = stored.files(root)
        for file in found.results:
            real = found.real[file]
            if real in results:
                continue
            try:
                results[real] = stored.read(real)
            except stored.OlderResult:
                older.append(file)
            except StoreError as error:
                raise StoreError(f"{error}. Nothing was copied") from None
        left = {file.parent for file in older}
        beside = [
            file
            for file in stored.foreign(found, results.values())
            if left.isdisjoint(file.parents)
        ]
        if beside:
            raise StoreError(
                f"{beside[0]}: got a file that belongs to no result, allowed: results, and the "
                "data files that they name; move it elsewhere. Nothing was copied"
            )
        seconds.update(found.real[file] for file in found.seconds)
        dangling += len(found.dangling)
    if seconds:
        source.notes.append(
            f"second results of a request, left where they are: {len(seconds)}; "
            f"the first: {min(seconds)}"
        )
    if older:
        source.notes.append(
            f"results of an older release, which cannot be checked, left where they are: "
            f"{len(older)}; the first: {older[0]}"
        )
    if dangling:
        source.notes.append(f"links that lead to no result: {dangling}")
    return list(results.values())


# What to take -------------------------------------------------------------------------------------


class _Choice:
    """Which results are taken, and which were found again.

    Args:
        own: The project's store.
    """

    def __init__(self, own: Store):
        self._own = own
        self._results: dict[str, list[Stored]] = {}  # by place; the first that was found is taken
        self._disagreements: list[str] = []

    def add(self, result: Stored, source: Source) -> None:
        """Take a result, unless it is there or taken."""
        there = self._own.find(result.place)
        taken = self._results.get(result.place)
        if there is None and taken is None:
            self._results[result.place] = [result]
            source.added.append(result.place)
            return
        if there is None:
            taken.append(result)
        first = there or taken[0].file
        if first.resolve() == result.file or result.place in source.added:
            self._compare(first, result, source)
        elif result.is_timed and not _is_same_file(first, result):
            source.timed.append(result.place)
        else:
            self._compare(first, result, source)
            source.same.append(result.place)

    def _compare(self, first: Path, result: Stored, source: Source) -> None:
        if _is_same_file(first, result):
            return
        problem = disagreement(first, result.file)
        if problem:
            self._disagreements.append(f"{result.place}: {problem}")
            return
        near = compare.tolerated_difference(compare.read(first), compare.read(result.file))
        if near:
            source.notes.append(
                f"{result.place}: differs as two kinds of CPU may, and the first one stays: "
                f"{near.key}: {compare.shown(near.second)}, first {compare.shown(near.first)}"
            )

    def checked(self) -> list[Stored]:
        """The results to copy.

        Raises:
            StoreError: Results disagree, or data files are not those that the result names.
        """
        if self._disagreements:
            first, *others = self._disagreements
            more = f" {len(others)} more results disagree." if others else ""
            raise StoreError(
                f"{first}, allowed: one result of one request; find out which is right, and remove "
                f"the other one.{more} Nothing was copied"
            )
        return [_with_data(results) for results in self._results.values()]


def _is_same_file(first: Path, result: Stored) -> bool:
    return first == result.file or provenance.file_sha256(first) == result.sha256


def _with_data(results: list[Stored]) -> Stored:
    """The first of several files of one result that has its data files beside it.

    A copy that follows a study's links has none: a study links to the result alone.
    """
    for result in results:
        if any((result.file.parent / name).exists() for name in result.data_files):
            break
    else:
        result = results[0]
    for name, expected in result.data_files.items():
        problem = data_problem(result.file.parent / name, expected)
        if problem:
            raise StoreError(f"{problem}, as {result.file.name} beside it says. Nothing was copied")
    return result


def data_problem(file: Path, expected: str) -> str | None:
    """The mistake in a data file whose recorded SHA-256 is `expected`; None if it is right."""
    try:
        found = provenance.file_sha256(file) if file.is_file() else "no such file"
    except OSError as error:
        found = error.strerror
    return None if found == expected else f"{file}: SHA-256: got {found}, allowed: {expected}"


# Copying ------------------------------------------------------------------------------------------


def _size_bytes(result: Stored) -> int:
    beside = [result.file.parent / name for name in result.data_files]
    return sum(file.stat().st_size for file in (result.file, *beside))


def _check_room(own: Store, needed_bytes: int) -> None:
    """Check that the store's disk has room.

    Raises:
        StoreError: It has not, or the store cannot be written.
    """
    own.check_writable()
    above = own.folder
    while not above.exists():
        above = above.parent
    free_bytes = shutil.disk_usage(above).free
    if free_bytes < needed_bytes:
        raise StoreError(
            f"{own.folder}: got {free_bytes} bytes of free disk, allowed: at least {needed_bytes}; "
            "nothing was copied"
        )


def _copy(result: Stored, own: Store) -> None:
    """Add one result to the store, with its data files.

    It takes no lock: a job may need hours for the same result, and finds this one at its end.

    Raises:
        StoreError: The store cannot be written, or a file has changed since it was checked.
    """
    with own.part(result.place) as part:
        expected = {Path(result.place).name: result.sha256, **result.data_files}
        for name, sha256 in expected.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(result.file.parent / name, part / name)
            if data_problem(part / name, sha256):
                raise StoreError(
                    f"{result.file.parent / name}: was changed while it was copied, allowed: a "
                    "file that stays; collect again, and what was added already is not added twice"
                )
