"""Files in a folder that every user of the machine may write: opened, made and locked with care.

A file may be junk, a link, a pipe or a folder, or locked by somebody to whom it does not belong.
Links are never followed and pipes never waited for. A file of ours is made anew, so nobody else
chose what it is. Used by the queue for GPUs (lease_queue.py). Standard library only.
"""

import contextlib
import errno
import fcntl
import os
import pwd
import stat
from pathlib import Path

from rankwise.execution.gpus import GpuError

FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NONBLOCK: a pipe opens at once


def open_shared(path: Path | str, mode: int = os.O_RDWR) -> int:
    """Open a file that every user may lock, and make it if it does not exist.

    In a folder with the sticky bit, Linux refuses to open a file of another user with O_CREAT
    (fs.protected_regular). An existing file is therefore opened without it.

    Raises:
        GpuError: It is no ordinary file, or this user may not open it. The sentence names it.
    """
    while True:  # between the two attempts, another process may make or remove the file
        with contextlib.suppress(FileNotFoundError):
            return open_existing(path, mode)
        with contextlib.suppress(FileExistsError):
            return create(path, mode)


def create(path: Path | str, mode: int = os.O_RDWR) -> int:
    """Make a file that every user may lock.

    Raises:
        FileExistsError: There is something by this name.
    """
    fd = os.open(path, mode | FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    os.fchmod(fd, 0o666)  # whatever the umask
    return fd


def open_existing(path: Path | str, mode: int = os.O_RDWR) -> int:
    """Open an ordinary file.

    Raises:
        FileNotFoundError: It does not exist.
        GpuError: It is no ordinary file, or this user may not open it. The sentence names it.
    """
    try:
        fd = os.open(path, mode | FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        raise refusal(path, "a symbolic link" if is_link else error.strerror.lower()) from None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return fd
    os.close(fd)
    # A second name could be that of a file of this user, which we would overwrite.
    is_file = stat.S_ISREG(status.st_mode)
    raise refusal(path, "a file with a second name (hard link)" if is_file else "no ordinary file")


def refusal(path: Path | str, got: str) -> GpuError:
    """The sentence that names a file of the queue that cannot be used."""
    owner = "its owner"
    with contextlib.suppress(OSError):
        owner = f"user {user_name(os.lstat(path).st_uid)}"
    return GpuError(
        f"{path}: got {got}, allowed: an ordinary file of the queue for GPUs that all users may "
        f"write; ask {owner} to remove it, or set RANKWISE_LEASES to another folder"
    )


def try_lock(fd: int, lock: int) -> bool:
    """Lock a file if that is possible at once."""
    try:
        fcntl.flock(fd, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def user_name(uid: int) -> str:
    """The name of a user, or the number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
