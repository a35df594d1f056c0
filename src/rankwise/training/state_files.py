"""Files of tensors that a training reads again: its checkpoint and its measured start.

`torch.load` notices some damage by itself, but not a flipped bit in a tensor's values: zip's
checksums of them are not compared. So the file ends with a seal of SEAL_BYTES bytes, a line of JSON
filled up with blanks:

    {"bytes": SIZE, "name": "DIGEST.pt", "sha256": "SHA-256 of the SIZE bytes before this line"}

It is checked before `torch.load` sees a byte. The name holds the digest of the run's request, so a
file that was copied from another run is refused, too.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import BinaryIO

import torch

SEAL_BYTES = 256
BLOCK_BYTES = 1 << 20  # read at once
DAMAGED = ".damaged"  # behind the name of a file that was moved aside


class _Hashed:
    """A file that is written from its beginning to its end, with the digest of what was written.

    Args:
        stream: The file.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.sha256, self.bytes = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        self.sha256.update(view)
        self.bytes += len(view)
        self._stream.write(view)
        return len(view)

    def flush(self) -> None:
        self._stream.flush()


class _Payload(io.RawIOBase):
    """The bytes of a file before its seal, to be read like a file of their own.

    Args:
        stream: The file.
        size: How many bytes come before the seal.
    """

    def __init__(self, stream: BinaryIO, size: int):
        self._stream, self._size, self._place = stream, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = begin + offset
        return self._place

    def readinto(self, buffer: bytearray) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._place)]
        self._stream.seek(self._place)
        count = self._stream.readinto(view)
        self._place += count
        return count


def save(contents: object, stream: BinaryIO, file: Path) -> None:
    """Write tensors, numbers, texts and containers of them, and the seal.

    Args:
        contents: What to write.
        stream: An empty file, open for writing.
        file: The file that it will be; its name is in the seal.
    """
    written = _Hashed(stream)
    torch.save(contents, written)
    stream.write(_seal(written.sha256.hexdigest(), written.bytes, file.name))


def load(file: Path) -> tuple[object, None] | tuple[None, str]:
    """Read what `save` wrote, with all tensors on the CPU.

    Returns:
        The contents and None; or None and what is wrong with the file, the end of a sentence that
        names it.
    """
    with file.open("rb") as stream:
        size = max(0, file.stat().st_size - SEAL_BYTES)
        sha256, left = hashlib.sha256(), size
        while left and (block := stream.read(min(left, BLOCK_BYTES))):
            sha256.update(block)
            left -= len(block)
        stream.seek(size)
        seal = stream.read()
        if seal != _seal(sha256.hexdigest(), size, file.name):
            return None, _difference(seal, size, file.name)
        payload = io.BufferedReader(_Payload(stream, size), BLOCK_BYTES)
        return torch.load(payload, map_location="cpu", weights_only=True), None


def move_aside(file: Path) -> str:
    """Rename a damaged file, and return its new name; another process may have been faster."""
    aside = file.with_name(f"{file.name}{DAMAGED}")
    if file.is_file():
        file.replace(aside)
    return aside.name


def _seal(sha256: str, size: int, name: str) -> bytes:
    line = json.dumps({"bytes": size, "name": name, "sha256": sha256}, sort_keys=True)
    return f"{line.ljust(SEAL_BYTES - 1)}\n".encode()


def _difference(seal: bytes, size: int, name: str) -> str:
    """Why a seal is not the one of a file with this size and name."""
    try:
        recorded = json.loads(seal)
        written, written_as = recorded["bytes"], recorded["name"]
    except (ValueError, KeyError, TypeError):
        return "it was cut short or changed, because it does not end with the seal of its content"
    if written_as != name:
        return f"it was written as {written_as}, the state of another run"
    if written != size:
        return f"it has {size} bytes of content, allowed: {written}, as it was written"
    return "its content was changed since it was written"
