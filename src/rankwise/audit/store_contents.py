"""The contents of a project's store: `rankwise store list`, `size` and `verify`.

Nothing is changed. Standard library only.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from rankwise.audit import stored
from rankwise.audit.store_collect import data_problem
from rankwise.audit.store_plans import planned
from rankwise.audit.stored import Files
from rankwise.core import process_names, store
from rankwise.core.store import Store, StoreError

UNREADABLE = "unreadable"  # the status of a file that is no result
SECOND = "second results"
ASIDE = "damaged results"
UNFINISHED = "unfinished"


def listing(root: Path, pattern: str | None = None) -> dict:
    """Every result in the store's folders.

    Args:
        root: The project's folder.
        pattern: List only these, see `matches`.

    Returns:
        `stores`: for each folder its `folder`, whether it is `read_only`, and `results`: `place`,
        `status`, `bytes`, and the `studies` that plan it. `unknown`: file of a study -> why nothing
        says what it plans.
    """
    plans = planned(root)
    stores = []
    for number, folder in enumerate(Store(root).folders):
        results = []
        for file in stored.files(folder).results:
            place = file.relative_to(folder).as_posix()
            if pattern is None or matches(place, pattern):
                results.append(
                    {
                        "place": place,
                        "status": _status(file),
                        "bytes": stored.size_bytes(file.parent),
                        "studies": plans.studies.get(place, []),
                    }
                )
        stores.append({"folder": str(folder), "read_only": number > 0, "results": results})
    return {"stores": stores, "unknown": plans.unknown}


def matches(place: str, pattern: str) -> bool:
    """Whether a pattern means a place: the place itself, a folder above it, or a text with `*`."""
    name = pattern.rstrip("/")
    return place == name or place.startswith(f"{name}/") or fnmatchcase(place, pattern)


def _status(file: Path) -> str:
    try:
        return stored.read(file).status
    except StoreError:
        return UNREADABLE


# Sizes --------------------------------------------------------------------------------------------


def sizes(root: Path) -> dict:
    """How much lies in the store's folders.

    Returns:
        `stores`: for each folder its `folder`, whether it is `read_only`, and `kinds`: for each
        kind of content `kind`, `count` and `bytes`, and of these the `unplanned_count` and
        `unplanned_bytes` that no study plans. `unknown` as in `listing`.
    """
    plans = planned(root)
    stores = []
    for number, folder in enumerate(Store(root).folders):
        found = stored.files(folder)
        kinds: dict[str, dict] = {}
        for file in found.results:
            place = file.relative_to(folder).as_posix()
            _count(kinds, place.split("/")[0], file.parent, place in plans.studies)
        for file in found.seconds:
            _count(kinds, SECOND, file.parent, is_planned=False)
        for file in found.damaged:
            _count(kinds, ASIDE, file.parent, is_planned=False)
        for part in found.parts:
            _count(kinds, UNFINISHED, part, is_planned=False)
        rows = [{"kind": kind, **counts} for kind, counts in kinds.items()]
        stores.append({"folder": str(folder), "read_only": number > 0, "kinds": rows})
    return {"stores": stores, "unknown": plans.unknown}


def _count(kinds: dict[str, dict], kind: str, folder: Path, is_planned: bool) -> None:
    names = ("count", "bytes", "unplanned_count", "unplanned_bytes")
    counts = kinds.setdefault(kind, dict.fromkeys(names, 0))
    size = stored.size_bytes(folder)
    counts["count"] += 1
    counts["bytes"] += size
    if not is_planned:
        counts["unplanned_count"] += 1
        counts["unplanned_bytes"] += size


# Verification -------------------------------------------------------------------------------------


def verify(root: Path) -> dict:
    """Read every file in the store's folders, and compare it with what is recorded.

    Returns:
        `stores`: for each folder its `folder`, how many `results` it has, and `problems`: a
        sentence for each thing that is wrong.
    """
    stores = []
    for folder in Store(root).folders:
        found = stored.files(folder)
        problems = [problem.text for problem in problems_in(folder, found)]
        stores.append({"folder": str(folder), "results": len(found.results), "problems": problems})
    return {"stores": stores}


class Problem(NamedTuple):
    """Something in a store that is not as it must be.

    Attributes:
        text: A sentence that names the file.
        damaged: The result that must be made anew; None if another thing is wrong.
        is_of_data: Whether a file beside the result is damaged, and not the result itself.
    """

    text: str
    damaged: Path | None = None
    is_of_data: bool = False


def problems_in(folder: Path, found: Files) -> Iterator[Problem]:
    """The damaged files of a store.

    Args:
        folder: The store.
        found: What lies in it.
    """
    results = []
    for file in found.results:
        try:
            result = stored.read(file)
        except StoreError as error:
            yield Problem(str(error), file)
            continue
        results.append(result._replace(file=found.real[file]))
        place = file.relative_to(folder).as_posix()
        if place != result.place:
            text = f"{file}: got this place, allowed: {folder / result.place}; move it there"
            yield Problem(text)
        for name, expected in result.data_files.items():
            problem = data_problem(file.parent / name, expected)
            if problem:
                text = f"{problem}, as {file.name} beside it says; delete {file.parent}"
                yield Problem(text, file, is_of_data=True)
    yield from map(Problem, _strange_files(folder, found, results))


def _strange_files(folder: Path, found: Files, results: list[stored.Stored]) -> Iterator[str]:
    """Sentences on files that are no sound results."""
    for file in [*stored.foreign(found, results), *_strangers(folder)]:
        yield f"{file}: belongs to no result, allowed: files that Rankwise wrote; move it elsewhere"
    for file in found.dangling:
        yield f"{file}: a link that leads to no file; delete it"
    for file in found.seconds:
        first = file.parent.with_name(stored.result_digest(file.parent) or "")
        yield (
            f"{file}: a second result of the request of {first / file.name}; find out which is "
            "right, and delete the other one's folder"
        )
    for part in found.parts:
        if not process_names.is_alive(part.name):
            yield f"{part}: left by a job that was killed, or is at work on another machine"


def _strangers(folder: Path) -> list[Path]:
    """The files in a store's folder that are no parts of it."""
    known = {*store.PARTS, store.VERSION_FILE}
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name not in known and not path.name.startswith(".")
    ]
