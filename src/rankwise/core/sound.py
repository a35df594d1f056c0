"""Whether results are as they were written, and what happens to one that is not.

A damaged result is never read and never deleted. Its folder `DIGEST` in the store is renamed to
`DIGEST.damaged-1`, so that the result is in no store, and Snakemake makes it anew. A folder that
the project only reads stays as it is, and its damaged results are passed over.

Planning looks at every result. Which files were found sound is remembered in
`results/.cache/sound.json` by device, inode, size, modification time and change time (ctime), so a
plan of thousands of results reads only the new ones. The file may be deleted.

Standard library only: the Snakefile imports this module.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rankwise.core import result, sealed
from rankwise.core.content import TICK_NS
from rankwise.core.paths import CACHE
from rankwise.core.store import Store
from rankwise.core.store_parts import DAMAGED, beside

KNOWN = CACHE / "sound.json"
Problem = Callable[[Path, str], str | None]


def problem(file: Path, digest: str) -> str | None:
    """The damage in the file of a result; None if it is as it was written.

    Args:
        file: The file; links are followed.
        digest: Of the request that it must answer.
    """
    try:
        return sealed.problem(file.read_bytes(), digest)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


class Known:
    """As `problem`, but a file that was found sound is read again only after a change.

    Args:
        root: The project's folder.
    """

    def __init__(self, root: Path):
        self._file = root / KNOWN
        self._sound = self._load()
        self._is_changed = False

    def problem(self, file: Path, digest: str) -> str | None:
        """As the function `problem`."""
        facts = file.stat()
        key = f"{facts.st_dev}:{facts.st_ino}"
        state = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, digest]
        if self._sound.get(key) == state:
            return None
        wrong = problem(file, digest)
        # Within one tick of the file system's clock, a file can change and keep its times.
        if wrong is None and time.time_ns() - facts.st_ctime_ns > TICK_NS:
            self._sound[key] = state
            self._is_changed = True
        return wrong

    def save(self) -> None:
        """Remember what was found, for the next planning."""
        if not self._is_changed:
            return
        with suppress(OSError):  # a full or read-only disk costs time only
            result.write_text(self._file, json.dumps(self._sound), sync=False)

    def _load(self) -> dict[str, list]:
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def find(store: Store, place: str, wrong: Problem = problem) -> Path | None:
    """The sound file of a result in the first folder that has one, or None.

    Damaged files are named on stderr, and set aside where the store is the project's own.

    Args:
        store: The store.
        place: As `store.place` gives it.
        wrong: Says what is wrong with a file.
    """
    digest = Path(place).parent.name
    for folder in store.folders:
        file = folder / place
        if not file.is_file():
            continue
        what = wrong(file, digest)
        if what is None:
            return file
        line = f"{file}: {what}; {set_aside(file, store)}, and made anew"
        print(line, file=sys.stderr, flush=True)
    return None


def set_aside(file: Path, store: Store) -> str:
    """Take a damaged result out of the store, with all files beside it, so that it is made anew.

    Args:
        file: The file of the result; links are followed.
        store: The project's store.

    Returns:
        The end of a sentence that names the file: what was done, or what to do.
    """
    folder = Path(os.path.realpath(file)).parent
    if not folder.is_relative_to(os.path.realpath(store.folder)):
        return f"{folder} is not of this project's store: delete it, or tell its owner"
    aside = beside(folder, DAMAGED)
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process was faster
        return "it is set aside"
    except OSError as error:
        return f"{folder} cannot be renamed ({error.strerror}): delete it"
    return f"set aside as {aside.name}"


def remedy(file: Path, store: Store) -> str:
    """As `set_aside`, for a job that cannot go on: the end of its sentence."""
    return f"{set_aside(file, store)}; run snakemake again, which makes it anew"
