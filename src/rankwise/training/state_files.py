"""Files of tensors that a training reads again: its checkpoint and its measured start.

`torch.load` notices some damage by itself, but not a flipped bit in a tensor's values: zip's
checksums of them are not compared. So the file ends with a seal (`core/state_seal.py`), which is
checked before `torch.load` sees a byte.
"""

import hashlib
import io
from pathlib import Path
from typing import BinaryIO

import torch

from rankwise.core import state_seal


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
    stream.write(state_seal.seal(written.sha256.hexdigest(), written.bytes, file.name))


def load(file: Path) -> tuple[object, None] | tuple[None, str]:
    """Read what `save` wrote, with all tensors on the CPU.

    Returns:
        The contents and None; or None and what is wrong with the file, the end of a sentence that
        names it.
    """
    with file.open("rb") as stream:
        problem = state_seal.problem_of(stream, file)
        if problem:
            return None, problem
        payload = _Payload(stream, state_seal.content_bytes(file))
        buffered = io.BufferedReader(payload, state_seal.BLOCK_BYTES)
        return torch.load(buffered, map_location="cpu", weights_only=True), None
