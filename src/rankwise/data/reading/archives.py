"""Tar archives of text files, one row a file."""

import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rankwise.data.reading.bombs import check_unpacked
from rankwise.data.reading.lines import damaged, decode
from rankwise.data.record import Record, check_columns, problem

READ_BYTES = 1 << 20


def archive_rows(path: Path, dataset: dict, split: str) -> Iterator[Record | ValueError]:
    """The text files of an archive whose whole name matches, in the order of their names.

    An archive has its files in any order, so they are sorted: the rows are then the same for every
    copy of the data. The split's texts are held in memory, because going back in a compressed
    archive unpacks it from its start.

    Args:
        path: A tar file, plain or compressed.
        dataset: The entry. `member` of the split is the pattern of the names; its first group is
            the label.
        split: The name of the split.

    Yields:
        A record with the columns `text` and, if the pattern has a group, `label`; or the error of
        a member after which the next one can be read.

    Raises:
        ValueError: The pattern matches no file, or the archive is damaged.
    """
    pattern = re.compile(dataset["splits"][split]["member"])
    columns = ["text", "label"] if pattern.groups else ["text"]
    check_columns(path, columns, dataset)
    try:
        members = _members(path, pattern)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(damaged(path, "tar archive", error)) from None
    if not members:
        what = f"no file's name matches {pattern.pattern!r}"
        raise ValueError(
            f"{path}: {what} (splits.{split}.member); list the names: tar tf {path.name}"
        )
    for name in sorted(members):
        yield _row(members[name], path, name, pattern)


def _row(content: bytes | str, path: Path, name: str, pattern: re.Pattern) -> Record | ValueError:
    where = f"member {name}"
    if isinstance(content, str):
        return problem(path, where, content)
    try:
        text = decode(content.removeprefix(b"\xef\xbb\xbf"), path, where)
    except ValueError as error:
        return error
    cells = {"text": text}
    if pattern.groups:
        cells["label"] = pattern.fullmatch(name)[1]
    return Record(where, cells)


def _members(path: Path, pattern: re.Pattern) -> dict[str, bytes | str]:
    """The content of each file that matches, or what is wrong with it, by name."""
    members: dict[str, bytes | str] = {}
    places: set[str] = set()  # where the files would lie: ./a and a are one
    unpacked = 0
    with tarfile.open(path) as archive:
        for member in archive:
            unpacked += member.size  # as its header says, before any of it is read
            check_unpacked(path, unpacked)
            if member.isdir() or not pattern.fullmatch(member.name):
                continue
            name = PurePosixPath(member.name)
            if not member.isreg():
                members[member.name] = "a link or a device, allowed: a regular file"
            elif name.is_absolute() or ".." in name.parts:
                members[member.name] = "leaves the archive's folder, allowed: a name inside of it"
            elif posixpath.normpath(member.name) in places:
                members[member.name] = "stands twice in the archive, allowed: once"
            else:
                members[member.name] = archive.extractfile(member).read()
            places.add(posixpath.normpath(member.name))
        _check_end(path, archive)
    return members


def _check_end(path: Path, archive: tarfile.TarFile) -> None:
    """Check that the archive ends after its last member.

    tarfile takes a file that is cut, or broken, in the header of a member for a whole archive. Of
    two archives in one file it reads the first.

    Raises:
        tarfile.ReadError: There is no end mark, a block of zeros, or something follows it.
        EOFError: The compressed file is cut short.
        ValueError: Too many zeros follow.
    """
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark after the last member")
    while block := archive.fileobj.read(READ_BYTES):  # a checksum is checked at a file's end
        check_unpacked(path, archive.fileobj.tell())
        if block.strip(b"\0"):
            raise tarfile.ReadError("data after the end mark, as of two archives in one file")
