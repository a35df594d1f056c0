"""Copy results into a clone so that Snakemake takes them for results that were made there.

A result is copied to a hidden name and renamed, so it is never there in part. Its modification time
is set between those of its inputs and of the results here that read it, because Snakemake reruns
whatever is older than its inputs. The record that Snakemake keeps of a file is written as if the
job had run here: a later edit then reruns the job, and the record of an outdated file that was
there before does not.
"""

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import provenance, requests
from rankwise.core.compare import read
from rankwise.core.input_files import recorded_files
from rankwise.execution.snakemake_adapter import SnakemakeRecords
from rankwise.study.jobs import PlannedJob

PART = ".collected"  # ending of the name of a file or folder that is not complete yet


def import_results(
    planned: dict[str, PlannedJob], taken: dict[str, Path], agreed: set[str], root: Path
) -> None:
    """Copy results into the clone at `root`.

    Args:
        planned: Path -> job of every result of the study; a job comes after the jobs whose results
            it reads.
        taken: Path -> the file to take the result from, in the same order. It may be the file that
            is here.
        agreed: Paths of results that are here and are the same elsewhere.
        root: The project's folder.

    Raises:
        ValueError: a file that belongs to a result is missing or is not the one that the result
            names, or a file cannot be written.
    """
    staying = {path for path, file in taken.items() if file == root / path}
    latest = _latest_times(planned, staying, root)
    records = SnakemakeRecords(root)
    for path, file in taken.items():
        earliest = _newest_time(root, planned[path].inputs)
        if path not in staying:
            _import(file, planned[path], max(earliest, latest[path]), records)
        elif path in agreed and _time(root / path) < earliest:
            # Its input was made here after it, but it is the same as a result made from that input
            # elsewhere.
            os.utime(root / path, ns=(earliest, earliest))


def _latest_times(planned: dict[str, PlannedJob], staying: set[str], root: Path) -> dict[str, int]:
    """Path -> the latest modification time (ns) with which no staying result is rerun.

    That is the time of the oldest staying result that reads the path, directly or through others;
    or else now.
    """
    latest = dict.fromkeys(planned, time.time_ns())
    for path, job in reversed(planned.items()):  # a result that reads another comes before it
        own = _time(root / path) if path in staying else latest[path]
        for input_path in job.inputs:
            latest[input_path] = min(latest[input_path], own)
    return latest


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns


def _newest_time(root: Path, paths: Iterable[str]) -> int:
    """The newest modification time (ns) of the files that exist; 0 if none does."""
    return max((_time(root / path) for path in paths if (root / path).is_file()), default=0)


def _import(file: Path, job: PlannedJob, time_ns: int, records: SnakemakeRecords) -> None:
    """Copy one result, for a prepared input with its data files, and record the job as done."""
    target = records.root / job.path
    replace = _replace_folder if job.prepares_input else _replace_file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Forgotten first: after a crash in between, a file without a record does no harm, and a
        # record of another file would.
        records.forget(job.path)
        replace(file, target, job, time_ns)
        took_s = read(target)["environment"].get("job_time_s", 0)
        parameters = requests.recorded_parameters(job.request, job.rule)
        records.write(job.path, job.rule, parameters, took_s, time_ns)
    except OSError as error:
        raise ValueError(
            f"{job.path}: cannot be copied from {file}: {error.strerror or error}"
        ) from None


def _replace_file(file: Path, target: Path, job: PlannedJob, time_ns: int) -> None:
    part = target.with_name(f".{target.name}{PART}")
    try:
        shutil.copyfile(file, part)
        _check_and_date(part, file, job, time_ns)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _replace_folder(file: Path, target: Path, job: PlannedJob, time_ns: int) -> None:
    """Copy a result with all the files beside it."""
    folder = target.parent
    part = folder.with_name(f".{folder.name}{PART}")
    old = folder.with_name(f".{folder.name}{PART}.old")
    for leftover in (part, old):  # of a copy that was interrupted
        _remove(leftover)
    try:
        shutil.copytree(file.parent, part, ignore=shutil.ignore_patterns(".*"))
        _check_data_files(part / target.name, file)
        _check_and_date(part / target.name, file, job, time_ns)
        # No call replaces a folder that has files in it, so the old folder is moved out of the way
        # first.
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


def _check_and_date(part: Path, file: Path, job: PlannedJob, time_ns: int) -> None:
    """Set the copy's modification time, if it still answers the planned request."""
    if read(part)["request"] != job.request:
        raise ValueError(
            f"{file}: was made anew meanwhile, and answers another request now; collect again"
        )
    os.utime(part, ns=(time_ns, time_ns))


def _check_data_files(copied: Path, file: Path) -> None:
    """Check that the files beside a prepared input have the SHA-256 that its result names."""
    for name, expected in recorded_files(read(copied)).items():
        data_file = copied.with_name(name)
        found = provenance.file_sha256(data_file) if data_file.is_file() else "not there"
        if found != expected:
            raise ValueError(
                f"{file.with_name(name)}: sha256 is {found}, allowed: {expected}, "
                f"which {file.name} names"
            )
