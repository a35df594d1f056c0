"""The folder of the worker's socket, which no other user of the machine may reach.

The folder lies in the machine's folder for temporary files, where every user may make files. So
its name may be taken: by a link that leads into another folder, by a file, or by a folder of
another user, who would then see or answer what jobs send. Such a folder is refused. Both ends of a
connection also check that the other end belongs to this user.

Standard library only; needs Linux for the check of the other end.
"""

import contextlib
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path

CREDENTIALS = struct.Struct("3i")  # struct ucred of socket(7): pid, uid, gid
# A path of a Unix socket has at most 107 bytes (unix(7)); the name in the folder takes 17.
MAX_FOLDER_BYTES = 90


class UnsafeFolder(OSError):
    """The folder cannot be used. The message is a clause that names it and says what to do."""


def worker_folder() -> Path:
    """The folder of this user's sockets. It is made if it does not exist.

    Raises:
        UnsafeFolder: It is a link or no folder, another user owns it or may enter it, or its path
            is too long for a socket.
        OSError: It cannot be made or opened.
    """
    folder = Path(tempfile.gettempdir()) / f"rankwise-{os.getuid()}"
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        raise UnsafeFolder(f"the path of {folder} is too long for a socket; set TMPDIR")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise UnsafeFolder(f"{folder} is no folder; remove it or set TMPDIR")
    # Whoever replaces the folder by a link after this look is caught by O_NOFOLLOW.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if status.st_uid != os.getuid():
        raise UnsafeFolder(f"{folder} belongs to user {status.st_uid}; set TMPDIR")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise UnsafeFolder(
            f"{folder} has mode {mode:o}, so other users may enter it; remove it or set TMPDIR"
        )
    return folder


def peer_is_this_user(connection: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket belongs to this user."""
    answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, uid, _ = CREDENTIALS.unpack(answer)
    return uid == os.getuid()
