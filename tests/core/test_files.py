"""Files are written whole or not at all; what killed processes leave is removed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.disks import small_disk
from rankwise.core import files, process_names, result
from rankwise.core.files import CannotWrite, durable_write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "table.csv"
    with durable_write(file) as part:
        part.write_text("first")
        assert not file.exists()
        assert part.parent == file.parent
    with durable_write(file) as part:
        part.write_text("second")
        assert file.read_text() == "first"
    assert file.read_text() == "second"
    assert names(file.parent) == ["table.csv"]


def test_bytes_and_name_are_on_the_disk_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's bytes before its name appears, and the name before the caller goes on."""
    synced = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.is_dir(), (tmp_path / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with durable_write(tmp_path / "file") as part:
        part.write_text("x")
    assert synced == [(False, False), (True, True)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_error_removes_the_part(error: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(error), durable_write(file) as part:
        part.write_text("half")
        raise error
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        file = folder / "file"
        result.write_text(file, "old")
        with pytest.raises(
            CannotWrite, match=f"^{file}: No space left on device; it was not "
        ) as e:
            result.write_text(file, "x" * 100_000)
        assert e.value.errno == errno.ENOSPC
        assert file.read_text() == "old"
        assert names(folder) == ["file"]


def test_a_read_only_disk_is_a_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        file = folder / "file"
        file.write_text("old")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        for path in (file, folder / "new" / "file"):
            with pytest.raises(CannotWrite, match="Read-only file system; it was not written"):
                result.write_text(path, "new")
        assert file.read_text() == "old"


def test_an_error_of_another_file_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), durable_write(tmp_path / "file"):
        (tmp_path / "absent").read_text()
    with pytest.raises(PermissionError) as raised, durable_write(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere")
    assert type(raised.value) is PermissionError


KILLED = """
import os, signal, sys
from pathlib import Path
from rankwise.core.files import durable_write
with durable_write(Path(sys.argv[1])) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_parts_of_killed_processes_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    file = tmp_path / "below" / "file"
    subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    (left,) = names(file.parent)
    assert left.startswith(".part-file-")
    dead = process_names.name(2**22 + 1)  # more than any process number
    (tmp_path / f".part-folder-{dead}" / "within").mkdir(parents=True)
    far = tmp_path / ".part-file-far-17.00000000.1.2"
    far.touch()
    (tmp_path / "other.part").touch()
    with durable_write(tmp_path / "living") as part:
        part.write_text("at work")
        assert files.sweep(tmp_path, below=False) == [tmp_path / f".part-folder-{dead}"]
        assert files.sweep(tmp_path) == [file.parent / left]
        assert part.exists()
    assert names(tmp_path) == sorted([far.name, "below", "living", "other.part"])
    assert names(file.parent) == []
