"""The seal at the end of a file of tensors that a training reads again.

It is a line of JSON, filled up with blanks to SEAL_BYTES bytes:

    {"bytes": SIZE, "name": "DIGEST.pt", "sha256": "SHA-256 of the SIZE bytes before this line"}

The name holds the digest of the run's request, so a file that was copied from another run is
refused, too. Standard library only: `rankwise verify` checks the files without torch.
"""

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

SEAL_BYTES = 256
BLOCK_BYTES = 1 << 20  # read at once
DAMAGED = ".damaged"  # behind the name of a file that was moved aside


def seal(sha256: str, size: int, name: str) -> bytes:
    """The seal of a file.

    Args:
        sha256: Of the bytes before it.
        size: How many these are.
        name: The file's name.
    """
    line = json.dumps({"bytes": size, "name": name, "sha256": sha256}, sort_keys=True)
    return f"{line.ljust(SEAL_BYTES - 1)}\n".encode()


def problem(file: Path) -> str | None:
    """The mistake in a sealed file, the end of a sentence that names it; None if it is whole."""
    with file.open("rb") as stream:
        return problem_of(stream, file)


def problem_of(stream: BinaryIO, file: Path) -> str | None:
    """As `problem`, for a file that is open for reading."""
    size = content_bytes(file)
    sha256, left = hashlib.sha256(), size
    while left and (block := stream.read(min(left, BLOCK_BYTES))):
        sha256.update(block)
        left -= len(block)
    stream.seek(size)
    found = stream.read()
    if found == seal(sha256.hexdigest(), size, file.name):
        return None
    return _difference(found, size, file.name)


def content_bytes(file: Path) -> int:
    """How many bytes come before the seal."""
    return max(0, file.stat().st_size - SEAL_BYTES)


def move_aside(file: Path) -> str:
    """Rename a damaged file, and return its new name; another process may have been faster."""
    aside = file.with_name(f"{file.name}{DAMAGED}")
    if file.is_file():
        file.replace(aside)
    return aside.name


def _difference(found: bytes, size: int, name: str) -> str:
    """Why a seal is not the one of a file with this size and name."""
    try:
        recorded = json.loads(found)
        written, written_as = recorded["bytes"], recorded["name"]
    except (ValueError, KeyError, TypeError):
        return "it was cut short or changed, because it does not end with the seal of its content"
    if written_as != name:
        return f"it was written as {written_as}, the state of another run"
    if written != size:
        return f"it has {size} bytes of content, allowed: {written}, as it was written"
    return "its content was changed since it was written"
