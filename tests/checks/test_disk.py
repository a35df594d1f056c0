"""Free space is that of the disk that gets the results, through links and RANKWISE_STORE."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.disks import small_disk
from helpers.file_inputs import GRID as FILE_GRID
from rankwise.checks import disk, preflight
from rankwise.core.units import GIB
from rankwise.study.plan import Plan

SHARED_MEMORY = Path("/dev/shm")
GRID = {**FILE_GRID, "models": ["tiny"], "datasets": ["generated_reviews"]}


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk than the project's, with another amount of free space."""
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second disk")
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield Path(folder)


def problems(root: Path) -> list[str]:
    study = {"name": "x", "question": "?", "device": "cpu", "disk_gib": 1e6, "train": [GRID]}
    return preflight.lacking("disk", [], Plan(study, root, "config/x.yaml"))


def said_of(folder: Path) -> str:
    """The sentence about too little space, for the disk of a folder as `shutil` sees it."""
    free_gib = shutil.disk_usage(folder).free / GIB
    return f"config/x.yaml: disk_gib: {free_gib:.1f} GiB are free in "


@pytest.mark.parametrize("linked", ["results", "results/store"])
def test_the_disk_behind_a_link_is_looked_at(linked: str, tmp_path: Path, other_disk: Path) -> None:
    root = tmp_path / "project"
    (root / linked).parent.mkdir(parents=True)
    assert disk.results_folder(root).is_relative_to(root)
    (root / linked).symlink_to(other_disk)
    (sentence,) = problems(root)
    assert sentence.startswith(said_of(other_disk)), sentence
    assert said_of(other_disk) != said_of(tmp_path)
    assert f"{root / linked}, the study needs" in sentence
    assert root / linked in disk.written_folders(root)


@pytest.mark.parametrize("named", ["{other}", "{other}/not/there/yet", "{other}:/elsewhere"])
def test_the_disk_of_the_store_is_looked_at(
    named: str, tmp_path: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_STORE", named.format(other=other_disk))
    (sentence,) = problems(tmp_path)
    assert sentence.startswith(said_of(other_disk)), sentence
    assert f"in {other_disk}, the study needs" in sentence


def test_a_link_to_a_disk_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to("/gone/results")
    (sentence,) = problems(tmp_path)
    assert sentence.startswith(
        f"{tmp_path}/results: got a link to /gone/results, which is not there"
    )


def test_without_results_the_projects_own_disk_is_looked_at(tmp_path: Path) -> None:
    assert disk.results_folder(tmp_path) == tmp_path
    (tmp_path / "results").mkdir()
    assert disk.results_folder(tmp_path) == tmp_path / "results"
    assert disk.written_folders(tmp_path) == [tmp_path, tmp_path / "results"]


def test_a_read_only_folder_is_named_before_any_job(tmp_path: Path) -> None:
    with small_disk(tmp_path / "figures") as folder:
        files = [folder / "below" / "a.png", folder / "below" / "a.pdf", tmp_path / "a.csv"]
        assert disk.read_only(files) == []
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert disk.read_only(files) == [
            f"{folder / 'below'}: Read-only file system; allowed: a folder that can be written"
        ]
