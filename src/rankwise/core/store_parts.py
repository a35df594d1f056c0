"""How a result gets into a store: locks, folders that are moved to their place, second results.

Errors of the file system become sentences here. Standard library only: the Snakefile imports this
module.
"""

import contextlib
import errno
import fcntl
import io
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from rankwise.core import compare, process_names
from rankwise.core.files import PART, part_of, sync_path

VARIABLE = "RANKWISE_STORE"
DIFFERS = ".differs-"  # in the name of a folder with a second result
DAMAGED = ".damaged-"  # in the name of a folder with a result that was not as it was written


# What a file system without locks answers.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class StoreError(ValueError):
    """A store, or something in it, is not as it must be; the message says what is allowed."""


class StoreBusyError(StoreError):
    """Another process holds the lock on a result."""


# Folders ------------------------------------------------------------------------------------------


def remove_abandoned(final: Path) -> None:
    """Remove the hidden folders of processes that were killed on this machine.

    Those of other machines stay, because a lock need not reach as far as a shared disk does.
    """
    for name in os.listdir(final.parent):  # noqa: PTH208 - far quicker than paths
        if name.startswith(f"{PART}{final.name}") and process_names.is_alive(name) is False:
            shutil.rmtree(final.with_name(name), ignore_errors=True)


def put(part: Path, final: Path, name: str) -> None:
    """Move a folder with a result to its place, unless a result is there.

    Args:
        part: The folder.
        final: Its place.
        name: The name of the result's file.

    Raises:
        StoreError: Another result is there. The new one is kept beside it.
    """
    while not os.path.lexists(final / name):
        if final.is_dir():
            _remove_rest(final, name)
        try:
            part.rename(final)
            sync_path(final.parent)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    first, second = final / name, part / name
    problem = disagreement(first, second)
    if problem is None:
        print(f"{first}: stored meanwhile by another process, the same in all but times")
        return
    kept = beside(final, DIFFERS)
    part.rename(kept)
    raise StoreError(
        f"{first}: {problem.replace(str(second), str(kept / name))}. Allowed: one result of one "
        "request. Both are kept; find out which is right, and remove the other one's folder"
    )


def beside(folder: Path, mark: str) -> Path:
    """A name beside a result's folder that is not taken: `DIGEST.differs-1`."""
    number = 1
    while (kept := folder.with_name(f"{folder.name}{mark}{number}")).exists():
        number += 1
    return kept


def _remove_rest(folder: Path, name: str) -> None:
    """Remove the data files of a result that was deleted by hand.

    The folder is renamed first: what another process has moved there meanwhile is moved back.
    """
    rest = part_of(folder, "-rest")
    folder.rename(rest)
    if (rest / name).exists():
        rest.rename(folder)
    else:
        shutil.rmtree(rest)


def disagreement(first: Path, second: Path) -> str | None:
    """How two results of one request differ in more than times; None if they do not.

    Args:
        first: The file of a result.
        second: Another one.

    Returns:
        The key, and the value and the machine of each file; or which file cannot be read.
    """
    try:
        results = {file: compare.read(file) or {"request": {}} for file in (first, second)}
    except ValueError as error:
        return str(error)
    difference = compare.result_difference(*results.values())
    if difference is None:
        return None
    values = []
    for value, (file, result) in zip(difference[1:], results.items(), strict=True):
        values.append(f"{compare.shown(value)} in {file} ({compare.machine(result)})")
    by_how_much = compare.amount(*results.values(), difference)
    return f"{difference.key}: got {' but '.join(values)}{by_how_much}"


# Locks and errors ---------------------------------------------------------------------------------


def lock(path: Path, wait: bool) -> io.TextIOWrapper:
    """Open and lock a file.

    Its holder removes the file before the lock is released. A lock on a removed file is worth
    nothing, so it is taken again on the file that is there then. On a file system without locks
    the file is only opened; `put` keeps the results of two jobs apart there.

    Raises:
        StoreBusyError: Another process holds the lock, and `wait` is False.
    """
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read() or "another process"
            if not wait:
                stream.close()
                raise StoreBusyError(f"{path.name}: {holder} is at work on it") from None
            print(f"waiting for {holder}, which computes this", flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        if os.fstat(stream.fileno()).st_nlink:
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
            return stream
        stream.close()


@contextlib.contextmanager
def said_in_one_sentence(folder: Path, numbers: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn an error of the file system into a sentence.

    Args:
        folder: The store's folder.
        numbers: The `errno` of the errors that are meant; all if empty.
    """
    try:
        yield
    except OSError as error:
        if numbers and error.errno not in numbers:
            raise
        raise StoreError(
            f"{folder}: {error.strerror or error}; nothing was stored. Allowed: a folder that can "
            f"be written, with room; {VARIABLE} names another one"
        ) from error
