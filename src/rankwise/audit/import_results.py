"""Copying results into a clone, so that Snakemake takes them for what they are.

Each appears whole, by a rename. Its time is no earlier than that of what its job reads, for Snakemake makes anew what is older
than its inputs; and no later than that of what lies here and reads it. What Snakemake remembers of a file, the request that it
answers, is written as if the job had run here: so a later edit reruns the job, and what a stale file left behind does not.
"""

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.core import provenance, requests
from rankwise.core.compare import read

PART = ".collected"  # ends the name of what is not whole yet


class Planned(NamedTuple):
    """A planned result: the rule that makes it, the request that it answers, the planned results that its job reads."""

    rule: str
    request: dict
    reads: tuple[str, ...]

    @property
    def in_folder(self) -> bool:
        """Whether files that belong to it lie beside it."""
        return self.rule.startswith(("prepare_", "pretrain_"))


def check_idle(root: Path) -> None:
    """Raises ValueError where Snakemake is at work in a clone, or was killed at it."""
    if any((root / ".snakemake/locks").glob("*.lock")):
        raise ValueError(
            f"{root}/.snakemake/locks: Snakemake is at work here; wait, or after a crash: snakemake --unlock"
        )


def carry(
    planned: dict[str, Planned], taken: dict[str, Path], agreed: set[str], root: Path
) -> None:
    """Copy what is taken from elsewhere (`taken`: path -> file); `agreed`: what stays, and is the same elsewhere.

    In the order of `planned`, in which what is read comes before what reads it.

    Raises:
        ValueError: a file that belongs to a result is not there or not the one that it names, or cannot be written.
    """
    stays = {path for path, file in taken.items() if file == root / path}
    latest, known = _before_readers(planned, stays, root), Remembered(root)
    for path, file in taken.items():
        earliest = _newest(root, planned[path].reads)
        if path not in stays:
            _bring(path, file, planned[path], max(earliest, latest[path]), known)
        elif path in agreed and _time(root / path) < earliest:  # as if it had been copied
            os.utime(root / path, ns=(earliest, earliest))


def _before_readers(planned: dict[str, Planned], stays: set[str], root: Path) -> dict[str, int]:
    """The time (ns) of now, or if earlier the one of what stays and reads the path, or reads what reads it."""
    latest = dict.fromkeys(planned, time.time_ns())
    for path, job in reversed(planned.items()):
        own = _time(root / path) if path in stays else latest[path]
        for read_too in job.reads:
            latest[read_too] = min(latest[read_too], own)
    return latest


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns


def _newest(root: Path, paths: Iterable[str]) -> int:
    """The time (ns) of the newest of these that is there; 0 if none is."""
    return max((_time(root / path) for path in paths if (root / path).is_file()), default=0)


def _bring(path: str, file: Path, job: Planned, when: int, known: "Remembered") -> None:
    target = known.root / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        known.forget(path)  # a crash between the two leaves nothing remembered, which is no harm
        (_replace_folder if job.in_folder else _replace_file)(file, target, job, when)
        known.write(path, job, read(target)["environment"].get("job_time_s", 0), when)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be copied from {file}: {error.strerror or error}"
        ) from None


def _replace_file(file: Path, target: Path, job: Planned, when: int) -> None:
    part = target.with_name(f".{target.name}{PART}")
    try:
        shutil.copyfile(file, part)
        _stamp(part, file, job, when)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _replace_folder(file: Path, target: Path, job: Planned, when: int) -> None:
    """The result and all that lies beside it; no folder takes another's place in one step, so the old one steps aside."""
    folder = target.parent
    part, old = (folder.with_name(f".{folder.name}{end}") for end in (PART, f"{PART}.old"))
    for left in (part, old):
        _remove(left)
    try:
        shutil.copytree(file.parent, part, ignore=shutil.ignore_patterns(".*"))
        _check_files(part / target.name, file)
        _stamp(part / target.name, file, job, when)
        folder.rename(old)
        part.rename(folder)
    finally:
        _remove(part)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _stamp(part: Path, file: Path, job: Planned, when: int) -> None:
    """Give a copy its time, if it is still a copy of what was looked at."""
    if read(part)["request"] != job.request:
        raise ValueError(
            f"{file}: was made anew meanwhile, and answers another request now; collect again"
        )
    os.utime(part, ns=(when, when))


def _check_files(copied: Path, file: Path) -> None:
    """Whether the files beside a prepared model or dataset are those whose SHA-256 it names."""
    stored = read(copied)
    sums = dict(stored.get("files", {})) | {
        f"{name}.jsonl": one["sha256"] for name, one in stored.get("splits", {}).items()
    }
    for name, expected in sums.items():
        there = copied.with_name(name).is_file()
        found = provenance.file_sha256(copied.with_name(name)) if there else "not there"
        if found != expected:
            raise ValueError(
                f"{file.with_name(name)}: sha256 is {found}, allowed: {expected}, which {file.name} names"
            )


class Remembered:
    """What Snakemake remembers of a clone's files."""

    def __init__(self, root: Path):
        from snakemake.persistence.file import FilePersistence  # noqa: PLC0415 - takes a second, which --help should not

        self.root = root
        try:
            self._files = FilePersistence(path=root / ".snakemake")
        except OSError as error:
            raise ValueError(
                f"{root}/.snakemake: got {error.strerror}, allowed: a folder that can be written"
            ) from None

    def forget(self, path: str) -> None:
        """Neither a job that made the file nor one that was interrupted at it."""
        from snakemake.io import IOFile  # noqa: PLC0415

        self._files.cleanup_metadata(IOFile(path))

    def write(self, path: str, job: Planned, took_s: float, when: int) -> None:
        """The request, which decides whether the job runs again; of code and inputs nothing, for they are in the request."""
        from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord  # noqa: PLC0415

        record = MetadataRecord(
            rule=job.rule,
            params=requests.recorded_parameters(job.request, job.rule),
            record_format_version=RECORD_FORMAT_VERSION,
            job_hash=int(
                provenance.digest(path)[:15], 16
            ),  # tells jobs apart in Snakemake's report
            starttime=when / 1e9 - took_s,
            endtime=when / 1e9,
            incomplete=False,
        )
        self._files._write_record(path, record)  # no public way in: 9.27 offers none
