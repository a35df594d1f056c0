"""What other folders have comes into the store whole, each result once, and nothing that disagrees."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.disks import small_disk
from helpers.merging import (
    CELL,
    answer_of,
    contents,
    keep,
    own_store,
    planned_jobs,
    plant_older,
    rankwise,
    small_project,
)
from helpers.stored import change, store_result
from rankwise.audit.store_collect import collect
from rankwise.core import result, sealed
from rankwise.core.config import ConfigError
from rankwise.core.store import StoreError
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import read_plan
from rankwise.study.settle import fetch

TRAIN, MEMORY, TIMES = f"train {CELL}/seed0", f"memory {CELL}", f"throughput {CELL}"
MODEL, DATASET = "model tiny", "dataset generated_reviews"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlannedJob]:
    return planned_jobs(small_project(tmp_path_factory.mktemp("plan") / "project"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    return small_project(tmp_path / "here")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return small_project(tmp_path / "other")


def bring(here: Path, *folders: Path, **options: bool) -> list[dict]:
    """What became of the results of each folder."""
    return collect([str(folder) for folder in folders], here, **options)["folders"]


# What comes -----------------------------------------------------------------------------------------------------------


def test_everything_comes_once_and_links_follow(here: Path, other: Path, jobs: dict) -> None:
    keep(other, *jobs.values())
    unplanned = {**jobs[TRAIN].request, "cpu_threads": 99}
    place = Path("runs", CELL, "seed0")
    store_result(other, unplanned, lambda _: {"metrics": {}})
    (found,) = bring(here, other)
    assert len(found["added"]) == len(jobs) + 1
    assert len(list((own_store(here) / place).glob("*/train.json"))) == 2
    assert contents(own_store(here)) == contents(own_store(other))
    fetched, missing = fetch(read_plan(here, "config/mine.yaml"))
    assert (len(fetched), missing) == (len(jobs), [])
    (again,) = bring(here, other)
    assert (again["added"], len(again["same"])) == ([], len(jobs) + 1)


@pytest.mark.parametrize("part", [".", "results", "results/store"])
def test_a_clone_its_results_and_a_store_are_the_same(
    part: str, here: Path, other: Path, jobs: dict
) -> None:
    keep(other, *jobs.values())
    fetch(read_plan(other, "config/mine.yaml"))  # a study's links are no second results
    (found,) = bring(here, other / part)
    assert (len(found["added"]), found["same"], found["notes"]) == (len(jobs), [], [])


def test_results_of_the_older_layout_come_with_their_data_files(
    here: Path, other: Path, jobs: dict
) -> None:
    plant_older(other, *jobs.values())
    (found,) = bring(here, other)
    assert sorted(found["added"]) == sorted(job.place for job in jobs.values())
    assert (own_store(here) / jobs[MODEL].place).with_name(
        "model.safetensors"
    ).read_bytes() == b"weights"
    assert fetch(read_plan(here, "config/mine.yaml"))[1] == []


def test_a_projects_own_older_results_come_too(here: Path, jobs: dict) -> None:
    keep(here, jobs[MEMORY])
    plant_older(here, jobs[TRAIN], jobs[MEMORY])
    (found,) = bring(here, here)
    assert (found["added"], found["same"]) == ([jobs[TRAIN].place], [jobs[MEMORY].place])


def test_a_copy_that_followed_links_comes(
    here: Path, other: Path, jobs: dict, tmp_path: Path
) -> None:
    """Such a copy has data files in its store alone, and each JSON file twice."""
    keep(other, *jobs.values())
    fetch(read_plan(other, "config/mine.yaml"))
    copy = tmp_path / "copy"
    shutil.copytree(other / "results", copy / "results")
    assert not any(path.is_symlink() for path in copy.rglob("*.json"))
    (found,) = bring(here, copy)
    assert len(found["added"]) == len(jobs)
    assert contents(own_store(here)) == contents(own_store(other))


def test_links_into_a_shared_store_are_followed(
    here: Path, other: Path, jobs: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_STORE", str(other / "far"))
    keep(other, *jobs.values())
    fetch(read_plan(other, "config/mine.yaml"))
    monkeypatch.delenv("RANKWISE_STORE")
    (found,) = bring(here, other)
    assert len(found["added"]) == len(jobs)


def test_a_result_that_a_further_store_has_is_there(
    here: Path, other: Path, jobs: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(other, jobs[MEMORY])
    monkeypatch.setenv("RANKWISE_STORE", f"results/store:{own_store(other)}")
    (found,) = bring(here, other)
    assert found["added"] == []
    assert not own_store(here).exists()


def test_a_dry_run_says_the_same_and_copies_nothing(here: Path, other: Path, jobs: dict) -> None:
    keep(other, *jobs.values())
    said = bring(here, other, dry_run=True)
    assert not own_store(here).exists()
    assert bring(here, other) == said


def test_dangling_links_and_second_results_are_left_and_told(
    here: Path, other: Path, jobs: dict
) -> None:
    keep(other, jobs[MEMORY], jobs[TRAIN])
    with pytest.raises(StoreError):
        keep(other, jobs[TRAIN], metrics={"accuracy_fraction": 0.1})
    fetch(read_plan(other, "config/mine.yaml"))
    (own_store(other) / jobs[MEMORY].place).unlink()
    (found,) = bring(here, other)
    assert found["added"] == [jobs[TRAIN].place]
    assert "second results of a request, left where they are: 1;" in found["notes"][0]
    assert found["notes"][1] == "links that lead to no result: 1"


# The same result in several places ------------------------------------------------------------------------------------


def test_machines_and_times_may_differ(here: Path, other: Path, jobs: dict) -> None:
    (own,) = keep(here, jobs[MEMORY])
    before = own.read_bytes()
    keep(other, jobs[MEMORY], processor="Processor 2", cost={"step_time_s": 9.0})
    (found,) = bring(here, other)
    assert (found["added"], found["same"]) == ([], [jobs[MEMORY].place])
    assert own.read_bytes() == before


def test_of_measured_times_the_first_stay(
    here: Path, other: Path, jobs: dict, tmp_path: Path
) -> None:
    third = small_project(tmp_path / "third")
    for root, speed in ((other, 1.0), (third, 2.0)):
        keep(root, jobs[TIMES], metrics={"tokens_per_s": speed})
    first, second = bring(here, other, third)
    assert (first["added"], second["timed"]) == ([jobs[TIMES].place], [jobs[TIMES].place])
    assert result.read(own_store(here) / jobs[TIMES].place)["metrics"] == {"tokens_per_s": 1.0}


@pytest.mark.parametrize("where", ["here", "between the folders"])
def test_results_that_disagree_are_refused_by_name_and_nothing_is_copied(
    where: str, here: Path, other: Path, jobs: dict, tmp_path: Path
) -> None:
    keep(other, *jobs.values())
    third = small_project(tmp_path / "third")
    first = here if where == "here" else third
    keep(first, jobs[TRAIN], processor="Processor 2", metrics={"accuracy_fraction": 0.25})
    before = contents(here)
    with pytest.raises(StoreError) as refused:
        bring(here, *([other] if where == "here" else [third, other]))
    words = str(refused.value)
    for part in (
        f"{jobs[TRAIN].place}: metrics.accuracy_fraction: got 0.25 in {own_store(first) / jobs[TRAIN].place} (cpu, Processor 2)",
        f"but 0.5 in {own_store(other) / jobs[TRAIN].place} (cpu, Processor 1) (a relative difference of 0.5, allowed between two CPUs: 0.001), allowed: one result of one request",
        "Nothing was copied",
    ):
        assert part in words
    assert contents(here) == before


def test_results_of_an_older_release_stay_and_are_counted(
    here: Path, other: Path, jobs: dict
) -> None:
    """They have no digest of their content, so nothing can check them."""
    _, old = keep(other, jobs[TRAIN], jobs[MODEL])
    old.write_text(json.dumps(result.read(old)))
    (folder,) = bring(here, other)
    assert folder["added"] == [jobs[TRAIN].place]
    (note,) = folder["notes"]
    assert note.startswith("results of an older release, which cannot be checked, left")
    assert note.endswith(f": 1; the first: {old}")


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda file: file.write_text(file.read_text()[:-40]), "its content was changed"),
    (lambda file: file.write_bytes(b"\xff\xfe"), "it does not begin with"),
    (lambda file: file.write_text("[]"), "it does not begin with"),
    (lambda file: file.write_text(sealed.text({"request": {"cell": {}}})), "it holds no request of Rankwise"),
    (lambda file: change(file, request={**result.read(file)["request"], "cpu_threads": 99}), "it answers request .*, but its folder is named"),
    (lambda file: change(file, request={**result.read(file)["request"], "measurement": "flops"}), r"its request is of a flops\.json"),
])  # fmt: skip
def test_what_is_no_whole_result_is_named_and_nothing_is_copied(
    spoil: object, message: str, here: Path, other: Path, jobs: dict
) -> None:
    file, _ = keep(other, jobs[MEMORY], jobs[TRAIN])
    spoil(file)
    with pytest.raises(
        StoreError, match=rf"{file}: got no whole result: {message}.*Nothing was copied"
    ):
        bring(here, other)
    assert not own_store(here).exists()


def test_a_request_cannot_lead_out_of_the_store(here: Path, other: Path, jobs: dict) -> None:
    (file,) = plant_older(other, jobs[MEMORY])
    for name in ("../../../../../out", "..", "/tmp", ""):
        change(
            file,
            request={
                **jobs[MEMORY].request,
                "cell": {**jobs[MEMORY].request["cell"], "model": name},
            },
        )
        with pytest.raises(StoreError, match="no name of a folder"):
            bring(here, other)


def test_a_foreign_file_is_named_and_nothing_is_copied(here: Path, other: Path, jobs: dict) -> None:
    file, _ = keep(other, jobs[MODEL], jobs[TRAIN])
    foreign = file.with_name("adapter.bin")
    foreign.write_text("?")
    with pytest.raises(
        StoreError, match=f"{foreign}: got a file that belongs to no result.*Nothing was copied"
    ):
        bring(here, other)
    assert not own_store(here).exists()


def test_data_files_must_be_the_recorded_ones(here: Path, other: Path, jobs: dict) -> None:
    file, _ = keep(other, jobs[MODEL], jobs[TRAIN])
    weights = file.with_name("model.safetensors")
    for spoil, got in (
        (lambda: weights.write_bytes(b"torn"), "[0-9a-f]{64}"),
        (weights.unlink, "no such file"),
    ):
        spoil()
        with pytest.raises(
            StoreError,
            match=f"{weights}: SHA-256: got {got}, allowed: [0-9a-f]{{64}}.*Nothing was copied",
        ):
            bring(here, other)
    assert not own_store(here).exists()


def test_a_copy_that_is_interrupted_leaves_whole_results_and_goes_on(
    here: Path, other: Path, jobs: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(other, *jobs.values())
    copyfile, copied = shutil.copyfile, []

    def stop_at_fifth(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) == 5:
            Path(target).write_bytes(b"half")
            raise KeyboardInterrupt
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        bring(here, other)
    monkeypatch.undo()
    done = contents(own_store(here))
    assert 1 < len(done) < len(contents(own_store(other)))
    assert all(contents(own_store(other))[name] == data for name, data in done.items())
    bring(here, other)
    assert contents(own_store(here)) == contents(own_store(other))


def test_a_folder_without_results_is_named(here: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    for name in ("nowhere", "empty", "circle"):
        with pytest.raises(
            ConfigError,
            match=f"rankwise collect: DIR: got '{tmp_path / name}', allowed: a clone of Rankwise",
        ):
            bring(here, tmp_path / name)
    with pytest.raises(ConfigError, match="each once"):
        bring(here, other, tmp_path / "here/../other")
    assert bring(here, other) == [
        {"name": str(other), "added": [], "same": [], "timed": [], "notes": []}
    ]


def test_a_store_of_a_newer_version_is_named(here: Path, other: Path, jobs: dict) -> None:
    keep(other, jobs[MEMORY])
    (own_store(other) / "version.json").write_text('{"version": 2}')
    with pytest.raises(
        StoreError, match=f"{own_store(other)}/version.json: version: got 2, allowed: 1"
    ):
        bring(here, other)
    assert not own_store(here).exists()


def test_a_disk_without_room_and_one_that_is_read_only_are_one_sentence(
    here: Path, other: Path, jobs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(other, *jobs.values(), examples={"accuracy_fraction": [0.5] * 10_000})
    with small_disk(tmp_path / "disk") as disk:
        monkeypatch.setenv("RANKWISE_STORE", str(disk / "store"))
        with pytest.raises(
            StoreError,
            match=r"disk/store: got \d+ bytes of free disk, allowed: at least \d+; nothing was copied",
        ):
            bring(here, other)
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(
            StoreError, match="disk/store: cannot be written, allowed: a folder that can"
        ):
            bring(here, other)


def test_a_circle_of_links_is_walked_once(here: Path, other: Path, jobs: dict) -> None:
    keep(other, *jobs.values())
    (own_store(other) / "runs/again").symlink_to(own_store(other) / "runs")
    assert len(bring(here, other)[0]["added"]) == len(jobs)


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did(here: Path, other: Path, jobs: dict) -> None:
    keep(other, jobs[MEMORY], jobs[TRAIN])
    said = answer_of(rankwise(here, "collect", "../other", "--dry-run", "--json"))
    assert sorted(said["folders"][0]["added"]) == sorted([jobs[MEMORY].place, jobs[TRAIN].place])
    done = rankwise(here, "collect", "../other")
    assert done.returncode == 0, done.stderr
    assert "results/store: 2 results added, " in done.stdout
    assert "../other: 2 added" in done.stdout
    failed = rankwise(here, "collect", "../nowhere")
    assert failed.returncode == 1
    assert failed.stderr.startswith("rankwise: rankwise collect: DIR: got '../nowhere'")
    assert json.loads((own_store(here) / "version.json").read_text()) == {"version": 1}
