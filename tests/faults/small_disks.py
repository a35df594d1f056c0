"""Let the study write to disks that are full, or read-only, and then have room again.

Every place that a job writes to is a disk of its own, of 1 MiB: prepared inputs, results of
trainings, checkpoints, figures. A file fills one of them up.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults import clone
from faults.strikes import compare, run_undisturbed
from rankwise.core.paths import CHECKPOINTS

SIZE = "1m"
FILLER = ".filler"
PLACES = {
    "preparation": clone.STORE / "inputs",
    "result": clone.STORE / "runs",
    "checkpoint": CHECKPOINTS,
    "figure": clone.RESULTS / "figures",
}
FULL, READ_ONLY = "full", "read-only"
REASONS = {FULL: "No space left on device", READ_ONLY: "Read-only file system"}


@dataclass
class Tried:
    """A run of the study while one place could not be written.

    Attributes:
        place: A key of PLACES.
        state: FULL or READ_ONLY.
        ended_well: Whether Snakemake ended well.
        sentences: Lines of the terminal and of the jobs' logs that give the system's reason.
        lost: Finished results that are gone, or were written again, after the run with room.
        unequal: Files that differ from the undisturbed run's, after the run with room.
        left: Files that the undisturbed run has not, after the run with room.
    """

    place: str
    state: str
    ended_well: bool
    sentences: list[str]
    lost: list[str]
    unequal: list[str]
    left: list[str]


@contextlib.contextmanager
def mounted(root: Path) -> Iterator[None]:
    """Mount a small disk at every place; the test is skipped where nothing may be mounted."""
    (root / clone.STORE).mkdir(parents=True)
    (root / clone.STORE / "version.json").write_text('{"version": 1}')  # as a job creates a store
    with contextlib.ExitStack() as stack:
        for place in PLACES.values():
            folder = root / place
            folder.mkdir(parents=True)
            _mount("-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder))
            stack.callback(subprocess.run, ["umount", folder], check=True)
        yield


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")


def empty(root: Path) -> None:
    """Remove what a run has made, except the places themselves and the store's version."""
    for place in PLACES.values():
        for inside in (root / place).iterdir():
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    kept = {root / place for place in PLACES.values()}
    kept |= {folder for place in kept for folder in place.parents}
    kept.add(root / clone.STORE / "version.json")
    for path in sorted((root / "results").rglob("*"), reverse=True):
        if path not in kept:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(root / ".snakemake", ignore_errors=True)
    shutil.rmtree(root / "logs", ignore_errors=True)


@contextlib.contextmanager
def unwritable(folder: Path, state: str) -> Iterator[None]:
    """Fill a disk, or make it read-only; undone at the end."""
    if state == READ_ONLY:
        _mount("-o", "remount,ro", str(folder))
    else:
        with (folder / FILLER).open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(4096)):
                pass
    try:
        yield
    finally:
        if state == READ_ONLY:
            _mount("-o", "remount,rw", str(folder))
        (folder / FILLER).unlink(missing_ok=True)


def try_all(root: Path) -> list[Tried]:
    """Run the study with every place full, and with every place read-only."""
    tried = []
    with mounted(root):
        undisturbed = run_undisturbed(root, empty)
        for state in (FULL, READ_ONLY):
            for place in PLACES:
                _remove_made(root, place)
                tried.append(_try(root, place, state))
            # The last run has room everywhere; it goes on from what the others have left.
            done = clone.run(root)
            assert done.returncode == 0, done.stderr[-5000:]
            ended = compare(root, undisturbed, 0)
            for one in tried[-len(PLACES) :]:
                one.unequal, one.left = ended.unequal, ended.left
            empty(root)
    return tried


def _remove_made(root: Path, place: str) -> None:
    """Remove what lies in a place, so that the next run writes there."""
    for inside in (root / PLACES[place]).iterdir():
        shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    if place == "checkpoint":  # written by trainings that have no result
        _remove_made(root, "result")


def _try(root: Path, place: str, state: str) -> Tried:
    """One run while a place cannot be written."""
    before = clone.results(root)
    shutil.rmtree(root / "logs", ignore_errors=True)
    with unwritable(root / PLACES[place], state):
        done = clone.run(root)
    now = clone.results(root)
    lost = [name for name, facts in before.items() if now.get(name) != facts]
    lines = done.stderr.splitlines()
    for log in (root / "logs").rglob("*.log"):
        lines += log.read_text().splitlines()
    sentences = [line for line in lines if REASONS[state] in line]
    return Tried(place, state, done.returncode == 0, sentences, lost, [], [])
