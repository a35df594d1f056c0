"""The remembered SHA-256 of files: right after every change, whatever the times say."""

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from rankwise.core import content, provenance

LONG_AGO_NS = 1_000_000_000_000_000_000


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is old enough to be remembered."""
    monkeypatch.setattr(content, "TICK_NS", -1)
    path = tmp_path / "data" / "a.tsv"
    path.parent.mkdir()
    path.write_bytes(b"text\tlabel\nx\t1\n")
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes are read."""
    read, file_sha256 = [], provenance.file_sha256
    monkeypatch.setattr(
        provenance, "file_sha256", lambda path: read.append(path) or file_sha256(path)
    )
    return read


def expected(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def notes(root: Path) -> list[Path]:
    return list((root / "results/.cache/sha256").iterdir())


def test_a_file_is_read_once(file: Path, tmp_path: Path, hashed: list[Path]) -> None:
    for _ in range(3):
        assert content.sha256(file, tmp_path) == expected(file)
    assert len(hashed) == 1
    (tmp_path / "link").symlink_to(file)
    assert content.sha256(tmp_path / "link", tmp_path) == expected(file)
    assert len(hashed) == 1


def test_the_same_size_and_modification_time_hide_no_change(file: Path, tmp_path: Path) -> None:
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    first = content.sha256(file, tmp_path)
    size = file.stat().st_size
    with file.open("r+b") as stream:  # in place: the inode is the same
        stream.write(b"text\tlabel\nx\t0\n")
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (size, LONG_AGO_NS)
    assert content.sha256(file, tmp_path) == expected(file) != first


def test_another_file_at_the_same_path_is_hashed(file: Path, tmp_path: Path) -> None:
    first = content.sha256(file, tmp_path)
    other = file.with_name("b.tsv")
    other.write_bytes(b"text\tlabel\ny\t1\n")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert content.sha256(file, tmp_path) == expected(file) != first


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, hashed: list[Path]) -> None:
    """Its times may stay the same at the next change, within one tick of the file system's clock."""
    path = tmp_path / "new"
    path.write_bytes(b"1")
    assert content.sha256(path, tmp_path) == expected(path)
    assert content.sha256(path, tmp_path) == expected(path)
    assert len(hashed) == 2
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("broken", [
    b"", b"{", b"[]", b"\xff", b'{"known": {}}', b'{"known": {"sha256": "00"}, "digest": 1}',
])  # fmt: skip
def test_a_broken_note_is_ignored(broken: bytes, file: Path, tmp_path: Path) -> None:
    content.sha256(file, tmp_path)
    (note,) = notes(tmp_path)
    note.write_bytes(broken)
    assert content.sha256(file, tmp_path) == expected(file)
    assert json.loads(note.read_text())["known"]["sha256"] == expected(file)


def test_a_digest_that_was_changed_in_a_note_refuses_no_file(file: Path, tmp_path: Path) -> None:
    content.sha256(file, tmp_path)
    (note,) = notes(tmp_path)
    right = expected(file)
    note.write_text(note.read_text().replace(right, right[::-1]))
    assert content.difference(file, right, tmp_path) is None


def test_without_a_place_for_notes_the_digest_is_right(file: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file, not a folder")
    assert content.sha256(file, tmp_path) == expected(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        content.sha256(tmp_path / "nowhere", tmp_path)
    assert content.difference(tmp_path / "nowhere", "00") == "sha256 is not there, allowed: 00"


def test_many_at_once_agree(file: Path, tmp_path: Path) -> None:
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(content.sha256(file, tmp_path)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {expected(file)}
    assert [note.suffix for note in notes(tmp_path)] == [".json"]
