"""What cannot be collected is named: torn results, folders that hold none, a clone at work or that cannot be written."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.merging import (
    MEMORY,
    MODEL,
    STUDY,
    TRAIN,
    bring,
    contents,
    planned_jobs,
    plant,
    rankwise,
    three_places,
)
from rankwise.core.config import ConfigError
from rankwise.study.jobs import PlannedJob


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlannedJob]:
    return planned_jobs(tmp_path_factory.mktemp("plan"))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    return three_places(tmp_path)


def test_files_beside_a_result_come_with_it_and_must_be_the_ones_it_names(places, planned) -> None:
    here, one, _ = places
    plant(here, planned, MODEL, metrics={"accuracy_fraction": 0.9})
    plant(one, planned)
    before = contents(here)
    weights = (one / MODEL).with_name("model.safetensors")
    for broken in (lambda: weights.write_bytes(b"torn"), weights.unlink):
        broken()
        with pytest.raises(
            ValueError, match=rf"{weights}: sha256 is .*, allowed: .*, which model\.json names"
        ):
            bring(here, one, prefer=str(one))
        kept = {name: content for name, content in contents(here).items() if "models" in name}
        assert kept == before
    weights.write_bytes(b"weights")
    (
        here / "results/inputs/models/.tiny.collected"
    ).mkdir()  # as a machine leaves it that is stopped while it copies
    bring(here, one, prefer=str(one))
    assert contents(here) == contents(one)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda file: file.write_text(file.read_text()[:-40]), "it is torn"),
    (lambda file: file.write_bytes(b"\xff\xfe"), "it is torn"),
    (lambda file: file.write_text("[]"), "it has no request"),
    (lambda file: (file.unlink(), file.symlink_to("nowhere")), "it is a link to what is not there"),
    (lambda file: (file.unlink(), file.symlink_to(file.name)), "Too many levels of symbolic links"),
    (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(spoil: object, message: str, places, planned) -> None:
    here, one, _ = places
    where = 1 if "link" in message else 0
    plant(here, planned, MEMORY)
    plant(one, planned, MEMORY, TRAIN)
    spoil(places[where] / MEMORY)
    with pytest.raises(ValueError, match=f"{places[where] / MEMORY}: cannot be read: {message}"):
        bring(here, one)
    assert not (here / TRAIN).exists()


def test_a_folder_that_is_none_of_results_is_named(places, planned, tmp_path: Path) -> None:
    here, one, other = places
    plant(here, planned, MEMORY)
    plant(one, planned, MEMORY)
    inside = shutil.copytree(one / "results", here / "backup/results")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(here)
    cases = {
        tmp_path
        / "empty": "a clone of Rankwise, or its results/ folder, with inputs, search, runs or profiles in it",
        tmp_path / "absent": "No such file",
        tmp_path / "loop": "loop of links|Too many levels",
        here: "another clone, or its results; this one is",
        here / "results": "another clone, or its results; this one is",
        tmp_path / "link": "another clone, or its results; this one is",
        inside: "another clone, or its results; this one is",
    }
    for folder, message in cases.items():
        with pytest.raises(
            ConfigError, match=rf"rankwise collect: DIR: got '{folder}', allowed: .*({message})"
        ):
            bring(here, folder)
    with pytest.raises(ConfigError, match="each once"):
        bring(here, one, one / "results")
    with pytest.raises(ConfigError, match=f"--prefer: got '{other}', allowed: ., {one}"):
        bring(here, one, prefer=str(other))
    assert (
        bring(here, other)["places"][1]["taken"] == []
    )  # a clone that has made nothing yet is one


def test_results_on_another_disk_are_found_through_links(places, planned, tmp_path: Path) -> None:
    here, one, _ = places
    plant(one, planned)
    for root, name in ((one, "far"), (here, "near")):
        shutil.move(root / "results", tmp_path / name)
        (root / "results").symlink_to(tmp_path / name)
    (tmp_path / "far/runs/again").symlink_to(tmp_path / "far")  # a circle is walked once
    assert len(bring(here, one)["places"][1]["taken"]) == len(planned)
    assert (tmp_path / "near" / Path(TRAIN).relative_to("results")).is_file()


def test_nothing_is_copied_while_snakemake_works_here(places, planned) -> None:
    here, one, _ = places
    plant(one, planned)
    (here / ".snakemake/locks").mkdir(parents=True)
    (here / ".snakemake/locks/0.output.lock").write_text("results/x\n")
    with pytest.raises(ValueError, match="Snakemake is at work here"):
        bring(here, one)
    assert contents(here) == {}


def test_a_clone_that_cannot_be_written_is_named(places, planned) -> None:
    here, one, _ = places
    plant(one, planned, MEMORY)
    (here / ".snakemake").write_text("")
    with pytest.raises(
        ValueError,
        match=rf"{here}/\.snakemake: got File exists, allowed: a folder that can be written",
    ):
        bring(here, one)
    (here / ".snakemake").unlink()
    (here / "results/profiles").write_text("")
    with pytest.raises(ValueError, match=f"{here / MEMORY}: cannot be read: Not a directory"):
        bring(here, one)
    assert [file.name for file in (here / "results").iterdir()] == ["profiles"]


def test_the_command_says_what_it_did(places, planned) -> None:
    here, one, _ = places
    plant(one, planned)
    done = rankwise(here, "collect", one, "--study", STUDY, "--dry-run", "--json")
    assert json.loads(done.stdout)["places"][1]["taken"] == list(planned)
    done = rankwise(here, "collect", "../one", "--study", STUDY)
    assert f"../one: {len(planned)} copied" in done.stdout, done.stderr
    failed = rankwise(here, "collect", "../nowhere", "--study", STUDY)
    assert failed.returncode == 1
    assert failed.stderr.startswith("rankwise: rankwise collect: DIR: got '../nowhere'")
    assert "Traceback" not in failed.stderr
