"""`rankwise store`: what lies there, whether it is right, what may go."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.merging import (
    CELL,
    answer_of,
    contents,
    keep,
    own_store,
    planned_jobs,
    rankwise,
    small_project,
)
from helpers.repository import ROOT
from helpers.stored import change
from rankwise.audit import store_remove
from rankwise.audit.store_contents import listing, sizes, verify
from rankwise.core.store import Store, StoreError
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import read_plan
from rankwise.study.settle import fetch, settle

TRAIN, MEMORY, MODEL = f"train {CELL}/seed0", f"memory {CELL}", "model tiny"
OTHER = "config/other.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    return small_project(tmp_path / "here")


@pytest.fixture
def jobs(here: Path) -> dict[str, PlannedJob]:
    return planned_jobs(here)


def edit_study(here: Path) -> None:
    """The study plans other trials and runs then, and the same profiles and inputs."""
    study = here / "config/mine.yaml"
    study.write_text(study.read_text().replace("updates: 2", "updates: 3"))


def one(answer: dict) -> dict:
    (store,) = answer["stores"]
    return store


def bytes_of(*files: Path) -> int:
    return sum(path.stat().st_size for file in files for path in file.parent.iterdir())


# list and size --------------------------------------------------------------------------------------------------------


def test_each_result_has_its_status_size_and_studies(here: Path, jobs: dict) -> None:
    model, train = keep(here, jobs[MODEL], jobs[TRAIN])
    keep(here, jobs[MEMORY], status="out_of_memory", reason="too large")
    text = (here / "config/mine.yaml").read_text()
    (here / OTHER).write_text(
        text.replace("name: mine", "name: other").replace("updates: 2", "updates: 3")
    )
    results = {result["place"]: result for result in one(listing(here))["results"]}
    assert results == {
        jobs[MODEL].place: {
            "place": jobs[MODEL].place, "status": "ok", "bytes": bytes_of(model), "studies": ["config/mine.yaml", OTHER]
        },
        jobs[TRAIN].place: {"place": jobs[TRAIN].place, "status": "ok", "bytes": bytes_of(train), "studies": ["config/mine.yaml"]},
        jobs[MEMORY].place: {**results[jobs[MEMORY].place], "status": "out_of_memory", "studies": ["config/mine.yaml", OTHER]},
    }  # fmt: skip
    done = rankwise(here, "store", "list", "*/lora/*")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("results/store: 2 results, "), done.stderr
    assert [line.split()[0] for line in lines[1:]] == sorted(
        [jobs[MEMORY].place, jobs[TRAIN].place], key=lambda place: place.startswith("profiles")
    )


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("runs", 1), ("runs/tiny/", 1), ("*memory.json", 1), ("nothing", 0), (None, 2)],
)
def test_a_pattern_is_a_place_a_folder_or_a_text_with_stars(
    pattern: str | None, count: int, here: Path, jobs: dict
) -> None:
    keep(here, jobs[MEMORY], jobs[TRAIN])
    assert len(one(listing(here, pattern))["results"]) == count


def test_sizes_are_by_kind_and_of_what_no_study_plans(here: Path, jobs: dict) -> None:
    files = keep(here, *jobs.values())
    edit_study(here)
    kinds = {row["kind"]: row for row in one(sizes(here))["kinds"]}
    by_kind = {
        kind: [file for file in files if f"store/{kind}/" in str(file)]
        for kind in ("inputs", "runs", "search", "profiles")
    }
    assert {kind: (row["count"], row["bytes"]) for kind, row in kinds.items()} == {
        kind: (len(found), bytes_of(*found)) for kind, found in by_kind.items()
    }
    assert kinds["runs"]["unplanned_count"] == len(by_kind["runs"]) == 2
    assert kinds["inputs"]["unplanned_bytes"] == 0
    done = rankwise(here, "store", "size")
    assert "of no study: 2, " in done.stdout, done.stderr


def test_a_study_that_cannot_be_read_is_noted(here: Path, jobs: dict) -> None:
    keep(here, jobs[MEMORY])
    (here / OTHER).write_text("name: other\nquestion: Why\ndevise: cpu\n")
    done = rankwise(here, "store", "list")
    assert done.returncode == 0
    assert (
        f"note: {OTHER}: nothing says which results it plans: {OTHER}: top level: got 'devise'"
        in done.stdout
    )


def test_further_stores_are_listed_and_not_changed(
    here: Path, jobs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(here, jobs[MEMORY])
    shutil.move(own_store(here), tmp_path / "far")
    monkeypatch.setenv("RANKWISE_STORE", f"results/store:{tmp_path}/far")
    keep(here, jobs[TRAIN])
    before = contents(tmp_path / "far")
    own, far = listing(here)["stores"]
    assert [result["place"] for result in own["results"]] == [jobs[TRAIN].place]
    assert (far["read_only"], [result["place"] for result in far["results"]]) == (
        True,
        [jobs[MEMORY].place],
    )
    with pytest.raises(StoreError, match=r"PLACE: got .*, allowed: a place in .*results/store"):
        store_remove.named(here, [jobs[MEMORY].place])
    edit_study(here)
    removed = store_remove.remove(store_remove.unplanned(here), here)["removed"]
    assert removed == [jobs[TRAIN].place]
    assert contents(tmp_path / "far") == before


# verify ---------------------------------------------------------------------------------------------------------------


def test_a_store_as_it_should_be(here: Path, jobs: dict) -> None:
    keep(here, *jobs.values())
    assert verify(here) == {
        "stores": [{"folder": str(own_store(here)), "results": len(jobs), "problems": []}]
    }
    assert (
        rankwise(here, "store", "verify").stdout
        == f"results/store: {len(jobs)} results, all as they must be\n"
    )


def spoiled_place(here: Path, jobs: dict) -> str:
    file = own_store(here) / jobs[TRAIN].place
    moved = file.parents[1].with_name("seed7") / file.parent.name
    moved.parent.mkdir()
    file.parent.rename(moved)
    return f"{moved / file.name}: got this place, allowed: {file}"


def spoiled_digest(here: Path, jobs: dict) -> str:
    file = own_store(here) / jobs[TRAIN].place
    change(file, request={**jobs[TRAIN].request, "cpu_threads": 99})
    return f"{file}: got no whole result: it answers request"


def spoiled_data(here: Path, jobs: dict) -> str:
    file = (own_store(here) / jobs[MODEL].place).with_name("model.safetensors")
    file.write_bytes(b"other")
    return f"{file}: SHA-256: got "


def foreign_file(here: Path, jobs: dict) -> str:
    file = own_store(here) / "runs/notes.txt"
    file.write_text("mine")
    return f"{file}: belongs to no result"


def foreign_folder(here: Path, jobs: dict) -> str:
    (own_store(here) / "photos").mkdir()
    return f"{own_store(here)}/photos: belongs to no result"


def left_part(here: Path, jobs: dict) -> str:
    dead = subprocess.Popen(["true"])
    dead.wait()
    folder = (own_store(here) / jobs[TRAIN].place).parent
    part = folder.with_name(
        f".part-{folder.name}-{Path('/proc/sys/kernel/hostname').read_text().strip()}-{dead.pid}"
    )
    part.mkdir()
    return f"{part}: left by a job that was killed"


def second_result(here: Path, jobs: dict) -> str:
    with pytest.raises(StoreError):
        keep(here, jobs[TRAIN], metrics={"accuracy_fraction": 0.1})
    file = own_store(here) / jobs[TRAIN].place
    return f"{file.parent}.differs-1/train.json: a second result of the request of {file}"


@pytest.mark.parametrize(
    "spoil",
    [
        spoiled_place,
        spoiled_digest,
        spoiled_data,
        foreign_file,
        foreign_folder,
        left_part,
        second_result,
    ],
)
def test_what_is_wrong_is_named(spoil: object, here: Path, jobs: dict) -> None:
    keep(here, *jobs.values())
    expected = spoil(here, jobs)
    (problem,) = one(verify(here))["problems"]
    assert problem.startswith(expected)
    done = rankwise(here, "store", "verify")
    assert (done.returncode, "1 problem" in done.stdout) == (1, True)


# remove ---------------------------------------------------------------------------------------------------------------


def test_what_no_study_plans_goes_after_a_question(here: Path, jobs: dict) -> None:
    keep(here, *jobs.values())
    fetch(read_plan(here, "config/mine.yaml"))
    planned = set(planned_jobs(here))
    edit_study(here)
    kept = {job.place for job in planned_jobs(here).values()}
    going = sorted({job.place for job in jobs.values()} - kept)
    assert 0 < len(going) < len(planned)
    before = contents(own_store(here))
    for answer in ("n\n", "\n", None):
        asked = rankwise(here, "store", "remove", "--unplanned", answer=answer)
        assert asked.returncode == 1
        assert all(place in asked.stdout for place in going)
        assert "nothing was removed" in asked.stdout
        assert contents(own_store(here)) == before
    done = rankwise(here, "store", "remove", "--unplanned", answer="y\n")
    assert f"{len(going)} folders removed, " in done.stdout, done.stderr
    left = {str(file.relative_to(own_store(here))) for file in own_store(here).rglob("*.json")} - {
        "version.json"
    }
    assert left == {job.place for job in jobs.values()} & kept
    links = [path for path in (here / "results/mine").rglob("*.json") if path.is_symlink()]
    assert len(links) == len(left)
    assert all(link.exists() for link in links)
    assert not list(own_store(here).rglob("seed0"))  # empty folders went along
    assert "every result is of a study" in rankwise(here, "store", "remove", "--unplanned").stdout


def test_places_go_without_a_question_if_told_so(here: Path, jobs: dict) -> None:
    keep(here, *jobs.values())
    done = rankwise(here, "store", "remove", jobs[MEMORY].place, "runs/tiny", "--yes")
    assert "3 folders removed" in done.stdout, done.stderr
    assert Store(here).find(jobs[MEMORY].place) is None
    wrong = rankwise(here, "store", "remove", jobs[MODEL].place, "elsewhere", "--yes")
    assert (
        wrong.returncode,
        "PLACE: got 'elsewhere', allowed: a place in results/store" in wrong.stderr,
    ) == (1, True)
    assert Store(here).find(jobs[MODEL].place) is not None
    assert rankwise(here, "store", "remove", "--yes").returncode == 2


def test_a_study_that_cannot_be_read_stops_the_removal(here: Path, jobs: dict) -> None:
    keep(here, *jobs.values())
    edit_study(here)
    before = contents(own_store(here))
    for text in ("name: other\nquestion: Why\ndevise: cpu\n", "name: [other\n", "- 1\n"):
        (here / OTHER).write_text(text)
        done = rankwise(here, "store", "remove", "--unplanned", "--yes")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert f"{OTHER}: nothing says which results it plans" in done.stderr
        assert contents(own_store(here)) == before


def test_a_study_outside_of_config_counts_and_one_that_is_gone_stops_the_removal(
    here: Path, jobs: dict
) -> None:
    (here / "studies").mkdir()
    (here / "config/mine.yaml").rename(here / "studies/mine.yaml")
    settle(read_plan(here, "studies/mine.yaml"))
    keep(here, *jobs.values())
    assert store_remove.unplanned(here) == []
    (here / "studies/mine.yaml").unlink()
    with pytest.raises(
        StoreError,
        match=r"results/mine/\.study\.json: got studies/mine\.yaml, which is not there.*delete results/mine",
    ):
        store_remove.unplanned(here)
    shutil.rmtree(here / "results/mine")
    assert len(store_remove.unplanned(here)) == len(jobs)


def test_unknown_sources_stop_the_removal(
    here: Path, jobs: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the files, the digests of all runs on them are unknown, and would look unplanned."""
    keep(here, *jobs.values())
    name = "minilm"  # its folder is below the variable RANKWISE_DATA
    monkeypatch.delenv("RANKWISE_DATA", raising=False)
    study = here / OTHER
    study.write_text(
        (here / "config/mine.yaml")
        .read_text()
        .replace("name: mine", "name: other")
        .replace("tiny", name)
    )
    assert store_remove.unplanned(here) == []  # nothing in the store could be of it
    folder = own_store(here) / f"runs/{name}/generated_reviews/lora/r2/seed0/{'0' * 16}"
    folder.mkdir(parents=True)
    with pytest.raises(
        StoreError,
        match=f"{OTHER}: nothing says which results it plans: model {name}: its files are not",
    ):
        store_remove.unplanned(here)


def test_a_result_that_a_job_is_computing_stays(here: Path, jobs: dict) -> None:
    keep(here, jobs[TRAIN], jobs[MEMORY])
    script = (
        "import sys\nfrom rankwise.core.store import Store\n"
        f"with Store().locked('{jobs[TRAIN].digest}'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", script], cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert job.stdout.readline() == "held\n"
    done = rankwise(here, "store", "remove", "runs", "profiles", "--yes")
    assert done.returncode == 1
    assert (
        f"{jobs[TRAIN].place}: left, because {jobs[TRAIN].digest}: process {job.pid} on "
        in done.stdout
    )
    job.communicate("")
    assert Store(here).find(jobs[TRAIN].place) is not None
    assert Store(here).find(jobs[MEMORY].place) is None


def test_a_shared_store_is_said_to_be_one(
    here: Path, jobs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_STORE", str(tmp_path / "shared"))
    keep(here, *jobs.values())
    edit_study(here)
    done = rankwise(here, "store", "remove", "--unplanned", RANKWISE_STORE=str(tmp_path / "shared"))
    assert (
        "This store is outside of the project. Studies of other projects were not read."
        in done.stdout
    )
    assert (
        answer_of(
            rankwise(here, "store", "size", "--json", RANKWISE_STORE=str(tmp_path / "shared"))
        )["unknown"]
        == {}
    )
