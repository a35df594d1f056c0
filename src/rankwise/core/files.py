"""Files that are on the disk whole or not at all, and what killed processes leave of them.

`durable_write` is the one way in which Rankwise writes a file that another process may read. The
content goes to a *part*, a hidden file in the same folder whose name holds the name of the process
that writes it (`core/process_names.py`):

    .part-summary.csv-HOST-PID.BOOT.NAMESPACE.START

The part replaces the file by a rename once its bytes are on the disk. An error removes the part. A
process that is killed leaves it, and `sweep` removes the parts of processes that have ended.

Standard library only: the Snakefile imports this module.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rankwise.core import process_names

PART = ".part-"
# What a full disk or quota, or a disk or folder that is read-only, answers.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_PERMISSION = (errno.EACCES, errno.EPERM)
CANNOT_SYNC = (errno.EINVAL, errno.EROFS, errno.ENOTSUP)  # what some file systems answer to fsync


class CannotWrite(OSError):
    """A file cannot be written; an earlier file of its name is as it was."""

    def __init__(self, code: int, path: Path | str):
        super().__init__(code, os.strerror(code), str(path))

    def __str__(self) -> str:
        return (
            f"{self.filename}: {self.strerror}; it was not written. Allowed: a folder that can be "
            "written, on a disk with room; then run again"
        )


def part_of(path: Path, purpose: str = "") -> Path:
    """The hidden file or folder, beside `path`, that this process writes first.

    Args:
        path: The file or folder.
        purpose: Tells several parts of one path apart; begins with `-`.
    """
    return path.with_name(f"{PART}{path.name}{purpose}-{process_names.name()}")


@contextmanager
def durable_write(path: Path, sync: bool = True) -> Iterator[Path]:
    """Write a file whole or not at all: the old file stays until the new one is on the disk.

    Use it as a context manager, and write to the path that it yields. Any exception within,
    KeyboardInterrupt and SystemExit included, removes what was written.

    Args:
        path: The file. Its folder is made where that is missing.
        sync: Wait until the bytes and the name are on the disk. Not needed for what can be made
            anew at any time, such as caches.

    Raises:
        CannotWrite: The disk is full, or the disk or the folder cannot be written.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if sync:
            sync_path(part)
        part.replace(path)
        if sync:
            sync_path(path.parent)
    except Exception as error:
        code = _disk_error(error, path, part)
        if code is None:
            raise
        raise CannotWrite(code, path) from error
    finally:
        with suppress(OSError):  # the disk may be read-only
            part.unlink(missing_ok=True)


def _disk_error(error: BaseException, path: Path, part: Path) -> int | None:
    """The `errno` of an error that says that the file cannot be written; None of any other error.

    Some libraries answer a full disk with an error of their own, which has the first one as its
    context.
    """
    own = {str(path), str(path.parent), str(part)}
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            is_permission = cause.errno in NO_PERMISSION and str(cause.filename) in own
            if cause.errno in NO_ROOM or is_permission:
                return cause.errno
        cause = cause.__cause__ or cause.__context__
    return None


def sync_path(path: Path) -> None:
    """Let a file's content, or a folder's names, reach the disk; some file systems cannot."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Let all files in a folder, and their names, reach the disk."""
    for above, _, names in os.walk(folder):
        for name in names:
            if not Path(above, name).is_symlink():
                sync_path(Path(above, name))
        sync_path(Path(above))


def sweep(folder: Path, below: bool = True) -> list[Path]:
    """Remove the parts of processes of this machine that have ended, in a folder.

    Parts of running processes stay. So do parts of other machines, whose processes are not known.
    Links to folders are not followed.

    Args:
        folder: The folder; it may be missing.
        below: Also in all folders below it.

    Returns:
        What was removed.
    """
    removed = []
    try:
        entries = list(os.scandir(folder))
    except OSError:  # not there, or removed meanwhile
        return []
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if not entry.name.startswith(PART):
            if is_folder and below:
                removed += sweep(Path(entry.path))
        elif process_names.is_alive(entry.name) is False:
            with suppress(OSError):  # another process may have removed it
                shutil.rmtree(entry.path) if is_folder else os.unlink(entry.path)  # noqa: PTH108
                removed.append(Path(entry.path))
    return removed
