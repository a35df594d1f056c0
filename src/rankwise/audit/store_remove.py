"""`rankwise store remove`: take results out of the project's store.

Only the store that the project writes to is changed, never the further ones that it reads. A result
that a job is computing is left. Standard library only.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.audit import stored
from rankwise.audit.store_contents import matches
from rankwise.audit.store_plans import planned
from rankwise.core import process_names, store
from rankwise.core.files import part_of
from rankwise.core.paths import RESULTS
from rankwise.core.store import Store, StoreError
from rankwise.core.store_parts import (
    StoreBusyError,
    said_in_one_sentence,
)


class Removable(NamedTuple):
    """A folder of the store: of a result, of a second result, or of a job that was killed.

    Attributes:
        folder: The folder.
        place: The result, or the folder, relative to the store.
        digest: Of the request.
        size_bytes: Of its files.
    """

    folder: Path
    place: str
    digest: str
    size_bytes: int


def named(root: Path, places: Iterable[str]) -> list[Removable]:
    """What a user names.

    Args:
        root: The project's folder.
        places: As `store_contents.matches` reads them. The store's own folder may stand before.

    Raises:
        StoreError: a place means nothing in the store.
    """
    own = Store(root)
    everything = list(_contents(own.folder))
    chosen: dict[Path, Removable] = {}
    for place in places:
        pattern = place.removeprefix(f"{own.folder}/")
        meant = [item for item in everything if matches(item.place, pattern)]
        if not meant:
            raise StoreError(
                f"rankwise store remove: PLACE: got {place!r}, allowed: a place in {own.folder} as "
                "`rankwise store list` shows it, a folder above it, or a pattern with *; nothing "
                "was removed"
            )
        chosen |= {item.folder: item for item in meant}
    return list(chosen.values())


def unplanned(root: Path) -> list[Removable]:
    """Results that no study of the project plans, and files that killed jobs have left.

    A second result stays, because somebody must decide which one is right.

    Raises:
        StoreError: nothing says what some study plans.
    """
    plans = planned(root)
    for file, problem in plans.unknown.items():
        raise StoreError(
            f"rankwise store remove --unplanned: {file}: nothing says which results it plans: "
            f"{problem}. Nothing was removed"
        )
    return [
        item
        for item in _contents(Store(root).folder)
        if item.place not in plans.studies and not stored.is_second(item.folder / "result")
    ]


def _contents(folder: Path) -> Iterator[Removable]:
    """All that may be removed from a store, each folder once."""
    found = stored.files(folder)
    for file in [*found.results, *found.seconds, *found.damaged]:
        digest = stored.result_digest(file.parent)
        if digest:
            place = file.relative_to(folder).as_posix()
            yield Removable(file.parent, place, digest, stored.size_bytes(file.parent))
    for part in found.parts:
        digest = stored.part_digest(part)
        if digest and not process_names.is_alive(part.name):
            place = part.relative_to(folder).as_posix()
            yield Removable(part, place, digest, stored.size_bytes(part))


def is_shared(root: Path) -> bool:
    """Whether the store is outside of the project, so that other projects may use it."""
    return not Store(root).folder.resolve().is_relative_to((root / RESULTS).resolve())


def remove(items: Iterable[Removable], root: Path) -> dict:
    """Remove folders from the store, and the project's links to what was in them.

    Args:
        items: What to remove.
        root: The project's folder.

    Returns:
        `removed`: places; `removed_bytes`; `busy`: sentences on those that a job is at work on.

    Raises:
        StoreError: the store cannot be written.
    """
    own = Store(root)
    removed, removed_bytes, busy = [], 0, []
    for item in items:
        try:
            with own.locked(item.digest, wait=False), said_in_one_sentence(own.folder):
                _remove(item, own.folder)
        except StoreBusyError as error:
            busy.append(f"{item.place}: left, because {error}")
            continue
        _remove_links(item.place, root)
        removed.append(item.place)
        removed_bytes += item.size_bytes
    return {"removed": removed, "removed_bytes": removed_bytes, "busy": busy}


def _remove(item: Removable, folder: Path) -> None:
    """Remove one folder: it is renamed first, so that half a result never lies at its place."""
    if item.folder.is_dir():
        gone = part_of(item.folder.with_name(item.digest), "-removed")
        item.folder.rename(gone)
        shutil.rmtree(gone)
    remove_empty(item.folder.parent, folder)


def remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and those above it, as far as they are empty and below `top`."""
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _remove_links(place: str, root: Path) -> None:
    """Remove the links of all studies to a result that is gone."""
    results = root / RESULTS
    for folder in (results, *results.glob("*")):
        link = folder / place
        if folder.name != store.DEFAULT.name and link.is_symlink() and not link.exists():
            store.unlink_result(link)
            remove_empty(link.parent, folder)
