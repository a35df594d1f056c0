"""The lines of a UTF-8 file, plain or compressed with gzip, and where they are in it.

A line ends at a line feed and nowhere else. `str.splitlines` and text files with universal newlines
also end it at U+2028, U+0085, vertical tabs and lone carriage returns, which JSON strings, quoted
cells and tweets contain.
"""

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rankwise.data.reading.bombs import FREE_BYTES, check_unpacked
from rankwise.data.record import problem

GZIP_MARK = b"\x1f\x8b"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Each line of a file with its number, from 1.

    Args:
        path: A text file in UTF-8, with or without a byte order mark, which is no part of the
            text. A file that begins as gzip does is unpacked.

    Yields:
        The number, and the line with its end as it is written: a "\r\n" stays.

    Raises:
        ValueError: The file is not UTF-8, or the compressed file is damaged or cut short.
    """
    offset_bytes = 0
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            content = line
            if number == 1:
                if line.startswith(_UTF16_MARKS):
                    mark = f"0x{line[0]:02X} 0x{line[1]:02X}"
                    raise ValueError(_utf16(path, f"begins with the bytes {mark}"))
                content = line.removeprefix(codecs.BOM_UTF8)
            start = offset_bytes + len(line) - len(content)
            if content:
                yield number, decode(content, path, f"row {number}", start)
            offset_bytes += len(line)


def without_blank_end(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, without the blank ones at its end, which hold no row.

    Args:
        path: As for `numbered_lines`, which also says what is yielded and raised.
    """
    blank: list[tuple[int, str]] = []
    for number, line in numbered_lines(path):
        if is_blank(line):
            blank.append((number, line))
            continue
        yield from blank
        blank.clear()
        yield number, line


def is_blank(line: str) -> bool:
    """Whether a line has nothing but its end."""
    return not line.strip("\r\n")


def decode(content: bytes, path: Path, where: str, offset_bytes: int = 0) -> str:
    """Decode UTF-8.

    Args:
        content: A line of a file, or a whole file.
        path: The file, for messages.
        where: The row or the member, for messages.
        offset_bytes: Where `content` begins in the (unpacked) file.

    Raises:
        ValueError: The content is not UTF-8, or has a zero byte, which no text has.
    """
    zero = content.find(b"\0")
    if zero >= 0:
        at = f"has byte 0x00 at offset {offset_bytes + zero} ({where})"
        raise ValueError(_utf16(path, at))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, at = content[error.start], offset_bytes + error.start
        what = (
            f"byte 0x{byte:02X} at offset {at} is not UTF-8, allowed: UTF-8; "
            f"if the file is Latin-1, convert it: {_iconv(path, 'LATIN1')}"
        )
        raise problem(path, where, what) from None


def _utf16(path: Path, got: str) -> str:
    return (
        f"{path}: {got}, allowed: a text file in UTF-8; "
        f"if the file is UTF-16, convert it: {_iconv(path, 'UTF-16')}"
    )


def _iconv(path: Path, encoding: str) -> str:
    """The command that converts a file to UTF-8."""
    plain = path.name.removesuffix(".gz")
    source = f"gzip -dc {path.name} | " if plain != path.name else ""
    file = "" if source else f" {path.name}"
    return f"{source}iconv -f {encoding} -t UTF-8{file} > utf8_{plain}"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read bytes from, unpacked if it is gzip. The content decides, not the name."""
    with path.open("rb") as file:
        mark = file.read(len(GZIP_MARK))
        file.seek(0)
        if mark != GZIP_MARK:
            if path.suffix == ".gz" and mark:
                allowed = "a gzip file, or a name without .gz"
                raise ValueError(f"{path}: is not gzip, allowed: {allowed}")
            yield file
            return
        try:
            yield _BoundedGzip(path, file)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(damaged(path, "gzip file", error)) from None


class _BoundedGzip(gzip.GzipFile):
    """A gzip file whose lines are read as long as it does not unpack to far more than its size."""

    def __init__(self, path: Path, file: BinaryIO):
        super().__init__(fileobj=file)
        self._path = path

    def readline(self, size: int = -1) -> bytes:  # noqa: ARG002 - the base class has it
        parts = []
        while part := super().readline(FREE_BYTES):
            check_unpacked(self._path, self.tell())
            parts.append(part)
            if part.endswith(b"\n"):
                break
        return b"".join(parts)


def damaged(path: Path, kind: str, error: Exception) -> str:
    """The sentence on a compressed file or archive that cannot be read to its end.

    Args:
        path: The file.
        kind: What it should be.
        error: What its reader says.
    """
    first_line = next(iter(str(error).splitlines()), "no reason")  # tarfile lists what it tried
    reason = first_line.rstrip(".:")
    return f"{path}: is damaged or cut short ({reason}), allowed: a whole {kind}; copy it again"
