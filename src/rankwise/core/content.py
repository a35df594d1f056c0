"""The SHA-256 of files, remembered from one process to the next.

Requests hold the digests of the files that datasets and models are read from, so every planning
needs them, and a job compares what it reads with what was recorded. A file of many GB is therefore
hashed once per machine and change, not once per process.

A remembered digest is used only while the file's size, inode, modification time and change time
(ctime) are the remembered ones. A modification time alone proves nothing: `os.utime`, `rsync -t`
and `tar` set it back. No ordinary program sets the change time.

Standard library only: the Snakefile imports this module.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from rankwise.core import paths, provenance
from rankwise.core.files import durable_write

CACHE = paths.CACHE / "sha256"
# A file system's clock may tick as rarely as once in 2 s (FAT) or 1 s (some network file systems).
# Within one tick a file can change twice and keep its times, so a younger file is not remembered.
TICK_NS = 2_000_000_000


def sha256(path: Path, root: Path = Path()) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    Args:
        path: The file; links are followed.
        root: The project's folder. What is remembered lies in `CACHE` below it; that folder may be
            deleted at any time. If it cannot be written, nothing is remembered.

    Raises:
        OSError: The file is not there or cannot be read.
    """
    file = path.resolve(strict=True)
    note = root / CACHE / f"{hashlib.sha256(os.fsencode(file)).hexdigest()}.json"
    before = _state(file)
    known = _known(note)
    if known.get("state") == before and known.get("path") == str(file):
        return known["sha256"]
    found = provenance.file_sha256(file)
    age_ns = time.time_ns() - before["ctime_ns"]
    if _state(file) == before and age_ns > TICK_NS:
        _remember(note, {"path": str(file), "state": before, "sha256": found})
    return found


def difference(file: Path, recorded: str, root: Path = Path()) -> str | None:
    """How a file differs from what was recorded of it, or None if it does not.

    Args:
        file: A file of a prepared dataset or model.
        recorded: Its SHA-256.
        root: The project's folder.

    Returns:
        The end of a sentence that names the file.
    """
    found = sha256(file, root) if file.is_file() else "not there"
    return None if found == recorded else f"sha256 is {found}, allowed: {recorded}"


def _state(file: Path) -> dict[str, int]:
    """The stamp of a file, which changes with every write."""
    facts = file.stat()
    return {
        "size_bytes": facts.st_size,
        "inode": facts.st_ino,
        "mtime_ns": facts.st_mtime_ns,
        "ctime_ns": facts.st_ctime_ns,
    }


def _known(note: Path) -> dict:
    """The note on a file; nothing if it is missing, or not as it was written."""
    try:
        written = json.loads(note.read_text(encoding="utf-8"))
        known = written["known"]
        return known if written["digest"] == provenance.digest_of_read(known) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(note: Path, value: dict) -> None:
    """Write a note whole or not at all. Other processes may write the same one."""
    # A full or read-only disk costs time only.
    with suppress(OSError), durable_write(note, sync=False) as part:
        # A wrong digest in a note would refuse a file that is as it was written.
        written = {"known": value, "digest": provenance.digest(value)}
        part.write_text(json.dumps(written), encoding="utf-8")
