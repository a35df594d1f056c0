"""Results of several clones come together: what answers the plan is copied, once, and nothing that disagrees."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLEAN, ROOT, copy_repository, edit, run_snakemake

from rankwise import config, result
from rankwise.agreement import gap
from rankwise.carry import Planned
from rankwise.collect import collect, jobs
from rankwise.collect_text import text
from rankwise.config import ConfigError
from rankwise.plan import Plan
from rankwise.report import tables

STUDY = "tests/studies/collect_search.yaml"
CELL = "tiny/generated_reviews/lora/r2"
TRAIN, MEMORY, TIMES = (
    f"results/runs/{CELL}/seed0/train.json",
    f"results/profiles/{CELL}/memory.json",
    f"results/profiles/{CELL}/throughput.json",
)
MODEL, DATASET = "results/inputs/models/tiny/model.json", "results/inputs/datasets/generated_reviews/dataset.json"
SELECTED = f"results/search/{CELL}/selected.json"
DAY_NS = 86_400 * 10**9


# Small clones, results by hand ----------------------------------------------------------------------------------------


def small_clone(root: Path) -> Path:
    """What a plan reads of a clone; and its results."""
    (root / "results").mkdir(parents=True)
    for name in ("config", "envs", "workflow_scripts", "tests"):
        (root / name).symlink_to(ROOT / name)
    return root


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Planned]:
    root = small_clone(tmp_path_factory.mktemp("plan") / "clone")
    return dict(jobs(Plan(config.read_yaml(root / STUDY, STUDY), root, STUDY)))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """This clone and two others, without results."""
    here, one, other = (small_clone(tmp_path / name) for name in ("here", "one", "other"))
    return here, one, other


def plant(root: Path, planned: dict[str, Planned], *paths: str, processor: str = "Processor 1", **found: object) -> None:
    """Results that answer the plan, each with the files beside it that it names; all of them where no path is named."""
    for path in paths or planned:
        file, job = root / path, planned[path]
        beside = (
            {"model.safetensors": b"weights"}
            if "model.json" in path
            else {"train.jsonl": b"{}\n"}
            if "dataset.json" in path
            else {}
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        for name, content in beside.items():
            file.with_name(name).write_bytes(content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in beside.items()}
        parts = (
            {"splits": {"train": {"rows": 1, "sha256": sums["train.jsonl"]}}}
            if "train.jsonl" in sums
            else {"files": sums}
            if sums
            else {}
        )
        default = {"metrics": {"accuracy_fraction": 0.5}, "cost": {"train_time_s": 1.0}, "device": "cpu", **parts}
        result.write(file, job.request, {**default, **found}, {"processor": processor, "job_time_s": 2.0})


def change(file: Path, **parts: object) -> None:
    result.write_json(file, {**result.read(file), **parts})


def bring(here: Path, *folders: Path, **options: object) -> dict:
    return collect([str(folder) for folder in folders], here, STUDY, **options)


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.glob("results/**/*")) if file.is_file()}


def consistent(root: Path, planned: dict[str, Planned]) -> bool:
    """Whether nothing that lies there is older than what its job reads: by this alone Snakemake would make it anew."""
    times = {path: (root / path).stat().st_mtime_ns for path in planned if (root / path).is_file()}
    assert times
    return all(times[path] >= times.get(read, 0) for path in times for read in planned[path].reads)


def test_jobs_come_after_what_they_read(planned: dict[str, Planned]) -> None:
    place = {path: number for number, path in enumerate(planned)}
    assert all(place[read] < place[path] for path, job in planned.items() for read in job.reads)
    assert {job.rule for job in planned.values()} == {
        "prepare_dataset", "pretrain_model", "trial", "choose", "train", "memory", "throughput", "predict",
    }  # fmt: skip
    assert set(planned[TRAIN].reads) == {DATASET, MODEL, SELECTED}


def test_what_is_planned_comes_once_and_all_else_stays_where_it_is(places, planned) -> None:
    here, one, other = places
    half = len(planned) // 2
    plant(one, planned, *list(planned)[:half])
    plant(other, planned, *list(planned)[half - 2 :])
    extra = "results/runs/tiny/generated_reviews/lora/r64/seed0/train.json"
    result.write(one / extra, {"cell": {}}, {}, {})
    found = bring(here, one, other / "results")
    of_one, of_other = found["places"][1:]
    assert [*of_one["taken"], *of_other["taken"]] == list(planned)
    assert (of_one["unplanned"], len(of_other["same"])) == (1, 2)
    assert found["missing"] == found["notes"] == []
    assert {**contents(other), **contents(one)} == {**contents(here), extra: (one / extra).read_bytes()}
    assert consistent(here, planned)
    before = {file: (here / file).stat().st_mtime_ns for file in contents(here)}
    again = bring(here, one, other)
    assert len(again["places"][0]["taken"]) == len(planned)
    assert {file: (here / file).stat().st_mtime_ns for file in contents(here)} == before


def test_a_dry_run_says_the_same_and_copies_nothing(places, planned) -> None:
    here, one, _ = places
    plant(one, planned)
    said = bring(here, one, dry_run=True)
    assert contents(here) == {}
    assert not (here / ".snakemake").exists()
    assert "would be copied" in text(said)
    assert {**bring(here, one), "dry_run": True} == said


def test_a_stale_result_stays_away_and_says_why(places, planned) -> None:
    here, one, _ = places
    plant(one, planned)
    request = planned[TRAIN].request
    code = {**request["code"], "rankwise.methods.lora": "0" * 16}
    change(one / TRAIN, request={**request, "code": code})
    change(one / MEMORY, request={**planned[MEMORY].request, "shapes": {**planned[MEMORY].request["shapes"], "batch_size": 99}})
    found = bring(here, one)
    assert found["places"][1]["stale"] == {
        TRAIN: ["src/rankwise/methods/lora.py changed"],
        MEMORY: [f"shapes.batch_size: 99 -> {planned[MEMORY].request['shapes']['batch_size']}"],
    }
    assert found["missing"] == [TRAIN, MEMORY]
    assert not (here / TRAIN).exists()
    assert "1 stale: src/rankwise/methods/lora.py changed" in text(found)


def test_a_stale_result_here_makes_way_for_the_planned_one(places, planned) -> None:
    here, one, _ = places
    plant(here, planned)
    plant(one, planned)
    change(here / TRAIN, request={**planned[TRAIN].request, "cpu_threads": 99})
    assert bring(here, one)["places"][1]["taken"] == [TRAIN]
    assert (here / TRAIN).read_bytes() == (one / TRAIN).read_bytes()


# The same result in several places ------------------------------------------------------------------------------------


def test_machines_times_and_reasons_may_differ(places, planned) -> None:
    here, one, _ = places
    own = {"rows": [{"peak_bytes": 1, "update_time_s": 1.0}], "reason": "process 1"}
    plant(here, planned, MEMORY, **own)
    plant(
        one,
        planned,
        MEMORY,
        processor="Processor 2",
        **{**own, "rows": [{"peak_bytes": 1, "update_time_s": 2.0}], "reason": "process 2"},
    )
    change(one / MEMORY, cost={"step_time_s": 9.0})
    before = contents(here)
    found = bring(here, one)
    assert found["places"][1]["same"] == [MEMORY]
    assert contents(here) == before


@pytest.mark.parametrize(("one", "other", "expected"), [
    ({"metrics": {"a": 1.0}, "status": "ok"}, {"metrics": {"a": 1.5}, "status": "diverged"}, ("status", "ok", "diverged")),
    ({"history": [{"epoch": 1}, {"epoch": 2}]}, {"history": [{"epoch": 1}, {"epoch": 3}]}, ("history.1.epoch", 2, 3)),
    ({"examples": {"a": [1.0, 0.0]}, "metrics": {"a": 1}}, {"examples": {"a": [0.0, 0.0]}, "metrics": {"a": 1}}, ("examples.a.0", 1.0, 0.0)),
    ({"a": {"update_time_s": 1, "energy_joules": 2}}, {"a": {"update_time_s": 2}}, None),
])  # fmt: skip
def test_a_gap_is_the_first_key_that_tells(one: dict, other: dict, expected: tuple | None) -> None:
    assert gap(one, other) == expected


@pytest.mark.parametrize("lists", [([1], [1, 2]), ([{"a": 1}], [{"a": 1, "b": 2}])])
def test_what_one_lacks_is_a_gap(lists: tuple[list, list]) -> None:
    assert gap({"history": lists[0]}, {"history": lists[1]}) is not None


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_results_that_disagree_are_refused_by_name_and_nothing_is_copied(where: str, places, planned) -> None:
    here, one, other = places
    plant(one, planned)
    plant(here if where == "here" else other, planned, TRAIN, processor="Processor 2", metrics={"accuracy_fraction": 0.25})
    before = contents(here)
    with pytest.raises(ValueError, match=r"metrics\.accuracy_fraction") as refused:
        bring(here, one, other)
    names = ("this clone", one) if where == "here" else (one, other)
    words = str(refused.value)
    for part in (TRAIN, *names, "0.5 in", "0.25 in", "cpu, Processor 1", "cpu, Processor 2", "--prefer", "nothing was copied"):
        assert str(part) in words
    assert contents(here) == before


def test_a_preferred_place_wins_here_and_elsewhere(places, planned) -> None:
    here, one, other = places
    for root, accuracy in zip(places, (0.1, 0.2, 0.3), strict=True):
        plant(root, planned, TRAIN, MEMORY, TIMES, metrics={"accuracy_fraction": accuracy})
    kept = contents(here)
    assert bring(here, one, other, prefer=str(here))["places"][0]["taken"] == [TRAIN, MEMORY, TIMES]
    assert contents(here) == kept
    assert bring(here, one, other, prefer=str(other))["places"][2]["taken"] == [TRAIN, MEMORY, TIMES]
    assert contents(here) == contents(other)
    assert bring(here, one, other, prefer=str(other))["places"][2]["taken"] == []


def test_what_was_made_from_another_input_than_the_one_taken_does_not_come(places, planned) -> None:
    """One request, two pre-trainings: their runs are no pair, although each answers the plan."""
    here, one, other = places
    read = [path for path, job in planned.items() if job.rule in ("trial", "choose", "train")]
    plant(one, planned, DATASET, MODEL, *read[:-1])
    plant(other, planned, DATASET, MODEL, *read)
    change(other / MODEL, history=[{"epoch": 7}])
    with pytest.raises(ValueError, match=re.escape(MODEL)):
        bring(here, one, other)
    found = bring(here, one, other, prefer=str(one))
    assert found["places"][2]["unlike"] == [MODEL, *read]
    assert read[-1] in found["missing"]
    assert result.read(here / MODEL) == result.read(one / MODEL)
    assert not (here / read[-1]).exists()


def test_times_never_agree_so_the_first_place_counts(places, planned) -> None:
    here, one, other = places
    plant(one, planned, TIMES, metrics={"gradient_norm": 1.0})
    plant(other, planned, TIMES, metrics={"gradient_norm": 2.0})
    found = bring(here, one, other)
    assert found["timed"] == [TIMES]
    assert (here / TIMES).read_bytes() == (one / TIMES).read_bytes()
    assert "timings that lie in several places: 1;" in text(found)
    assert bring(here, other)["places"][0]["taken"] == [TIMES]


# When Snakemake looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-DAY_NS, 0, DAY_NS])
def test_what_was_copied_is_never_older_than_what_lies_here_and_it_reads(shift: int, places, planned) -> None:
    here, one, _ = places
    plant(one, planned)
    for path in planned:
        os.utime(one / path, ns=(10**18, 10**18))
    plant(here, planned, DATASET, MODEL)
    for path in (DATASET, MODEL):
        when = (here / path).stat().st_mtime_ns + shift
        os.utime(here / path, ns=(when, when))
    bring(here, one)
    assert consistent(here, planned)


def test_inputs_that_come_late_are_no_newer_than_what_was_made_from_them(places, planned) -> None:
    here, one, _ = places
    kept = [path for path, job in planned.items() if job.rule in ("trial", "train")]
    plant(one, planned)
    plant(here, planned, *kept)
    times = {path: 10**18 + number for number, path in enumerate(kept)}
    for path, when in times.items():
        os.utime(here / path, ns=(when, when))
    bring(here, one)
    assert {path: (here / path).stat().st_mtime_ns for path in kept} == times
    assert consistent(here, planned)


def test_inputs_made_after_the_copies_are_settled_by_collecting_again(places, planned) -> None:
    here, one, _ = places
    read = [path for path, job in planned.items() if job.rule in ("trial", "train")]
    plant(one, planned, *read[:-1])
    found = bring(here, one)
    assert [note.split()[0] for note in found["notes"]] == [DATASET, MODEL]
    assert f"snakemake {MODEL}, then collect again" in text(found)
    plant(here, planned, *(path for path in planned if path not in read))
    assert not consistent(here, planned)
    assert bring(here, one)["notes"] == []
    assert consistent(here, planned)


# What cannot be copied ------------------------------------------------------------------------------------------------


def test_files_beside_a_result_come_with_it_and_must_be_the_ones_it_names(places, planned) -> None:
    here, one, _ = places
    plant(here, planned, MODEL, metrics={"accuracy_fraction": 0.9})
    plant(one, planned)
    before = contents(here)
    weights = (one / MODEL).with_name("model.safetensors")
    for broken in (lambda: weights.write_bytes(b"torn"), weights.unlink):
        broken()
        with pytest.raises(ValueError, match=rf"{weights}: sha256 is .*, allowed: .*, which model\.json names"):
            bring(here, one, prefer=str(one))
        kept = {name: content for name, content in contents(here).items() if "models" in name}
        assert kept == before
    weights.write_bytes(b"weights")
    (here / "results/inputs/models/.tiny.collected").mkdir()  # as a machine leaves it that is stopped while it copies
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
        tmp_path / "empty": "a clone of Rankwise, or its results/ folder, with inputs, search, runs or profiles in it",
        tmp_path / "absent": "No such file",
        tmp_path / "loop": "loop of links|Too many levels",
        here: "another clone, or its results; this one is",
        here / "results": "another clone, or its results; this one is",
        tmp_path / "link": "another clone, or its results; this one is",
        inside: "another clone, or its results; this one is",
    }
    for folder, message in cases.items():
        with pytest.raises(ConfigError, match=rf"rankwise collect: DIR: got '{folder}', allowed: .*({message})"):
            bring(here, folder)
    with pytest.raises(ConfigError, match="each once"):
        bring(here, one, one / "results")
    with pytest.raises(ConfigError, match=f"--prefer: got '{other}', allowed: ., {one}"):
        bring(here, one, prefer=str(other))
    assert bring(here, other)["places"][1]["taken"] == []  # a clone that has made nothing yet is one


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
    with pytest.raises(ValueError, match=rf"{here}/\.snakemake: got File exists, allowed: a folder that can be written"):
        bring(here, one)
    (here / ".snakemake").unlink()
    (here / "results/profiles").write_text("")
    with pytest.raises(ValueError, match=f"{here / MEMORY}: cannot be read: Not a directory"):
        bring(here, one)
    assert [file.name for file in (here / "results").iterdir()] == ["profiles"]


def rankwise(root: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rankwise.cli", *map(str, arguments)]
    environment = {**CLEAN, "PYTHONPATH": str(root / "src" if (root / "src").is_dir() else ROOT / "src")}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


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


# The real workflow ----------------------------------------------------------------------------------------------------

REAL = "tests/studies/collect.yaml"
RUNS = "results/runs/tiny/generated_reviews/{}/seed0/train.json"
FULL, LORA, RSVD = (RUNS.format(name) for name in ("full/r0", "lora/r2", "rsvd/r2"))


def pending(root: Path) -> list[dict]:
    """What Snakemake would make now, as `rankwise plan` hears it, less what is made from results."""
    done = rankwise(root, "plan", "--study", REAL, "--json")
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    assert any("results/report.html" in job["files"] for job in jobs)  # downstream of all
    return [job for job in jobs if job["files"][0].startswith(("results/inputs", "results/runs", "results/profiles"))]


def build(root: Path, *targets: str) -> None:
    done = run_snakemake(root, *targets, "--configfile", REAL, "--cores", "2")
    assert done.returncode == 0, done.stderr[-4000:]


def real_clone(root: Path) -> Path:
    """A clone whose tiny model is pre-trained for two updates."""
    copy_repository(root)
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    return root


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clones, each with half of a study; lora is in both."""
    folder = tmp_path_factory.mktemp("collect")
    build(real_clone(folder / "one"), FULL, LORA)
    build(
        real_clone(folder / "other"),
        RSVD,
        LORA,
        *(f"results/profiles/tiny/generated_reviews/{name}/r2/memory.json" for name in ("lora", "rsvd")),
    )
    return folder


@pytest.fixture
def third(halves: Path, tmp_path: Path) -> Path:
    """A clone into which both are collected."""
    root = real_clone(tmp_path / "third")
    done = rankwise(root, "collect", halves / "one", halves / "other/results", "--study", REAL)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 results are there, 0 are to be made; 8 files copied, 0 were here" in done.stdout
    return root


@pytest.mark.slow
def test_two_halves_are_a_study_and_only_tables_are_left_to_make(third: Path) -> None:
    assert pending(third) == []


@pytest.mark.slow
def test_an_edit_after_collecting_reruns_what_it_changes(third: Path) -> None:
    edit(third / "src/rankwise/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha")
    found = pending(third)
    assert {job["files"][0] for job in found} == {LORA, "results/profiles/tiny/generated_reviews/lora/r2/memory.json"}
    assert {why for job in found for why in job["why"]} == {"src/rankwise/methods/lora.py changed"}


@pytest.mark.slow
def test_a_clone_with_a_copy_of_the_results_is_incremental(third: Path, tmp_path: Path) -> None:
    root = real_clone(tmp_path / "fourth")
    shutil.copytree(third / "results", root / "results", dirs_exist_ok=True)
    assert pending(root) == []
    edit(root / REAL, "seeds: [0]", "seeds: [0, 1]")
    assert {job["files"][0] for job in pending(root)} == {path.replace("seed0", "seed1") for path in (FULL, LORA, RSVD)}


@pytest.mark.slow
def test_what_snakemake_remembers_of_a_stale_result_does_not_rerun_the_collected_one(halves: Path, tmp_path: Path) -> None:
    """And inputs that were prepared here, later than the others trained, rerun nothing."""
    root = real_clone(tmp_path / "clone")
    rate = ("dropout: 0.1}\n  learning_rate: 2.0e-4", "dropout: 0.1}\n  learning_rate: 3.0e-4")
    edit(root / "config/methods.yaml", *rate)
    build(root, LORA)
    edit(root / "config/methods.yaml", *reversed(rate))
    assert [(job["files"][0], job["why"]) for job in pending(root) if job["files"][0] == LORA] == [
        (LORA, ["method.learning_rate: 0.0003 -> 0.0002"])
    ]
    done = rankwise(root, "collect", halves / "one", halves / "other", "--study", REAL)
    assert "1 stale: method.learning_rate: 0.0003 -> 0.0002" in done.stdout, done.stderr
    assert pending(root) == []


@pytest.mark.slow
def test_real_results_that_disagree_are_refused_by_name(halves: Path, third: Path, tmp_path: Path) -> None:
    other = shutil.copytree(halves / "other", tmp_path / "edited")
    stored = result.read(other / LORA)
    before = stored["metrics"]["accuracy_fraction"]
    change(other / LORA, metrics={**stored["metrics"], "accuracy_fraction": before / 2})
    refused = rankwise(third, "collect", halves / "one", other, "--study", REAL)
    assert refused.returncode == 1
    for part in (
        LORA,
        "metrics.accuracy_fraction",
        f"{before} in this clone",
        f"{before / 2} in {other}",
        "nothing was copied",
    ):
        assert part in refused.stderr
    assert pending(third) == []
    assert rankwise(third, "collect", other, "--study", REAL, "--prefer", other).returncode == 0
    assert result.read(third / LORA) == result.read(other / LORA)
    assert pending(third) == []


@pytest.mark.slow
def test_tables_of_two_machines_name_them_and_compare_scores_but_no_times(halves: Path, tmp_path: Path) -> None:
    root, other = real_clone(tmp_path / "third"), shutil.copytree(halves / "other", tmp_path / "machine")
    for file in other.glob("results/runs/**/train.json"):
        change(file, environment={**result.read(file)["environment"], "processor": "Another Processor"})
    assert rankwise(root, "collect", halves / "one", other, "--study", REAL).returncode == 0
    build(
        root,
        "results/tables/summary.csv",
        "results/tables/memory.csv",
        "results/tables/history.csv",
        "results/figures/metric_by_rank.png",
    )
    runs = tables.read(root / "results/tables/runs.csv").set_index("method")
    assert set(runs["device"]) == {"cpu"}
    assert runs.loc["rsvd", "device_name"] == "Another Processor" != runs.loc["full", "device_name"]
    assert runs["environment_digest"].nunique() == 2
    for name in ("history", "memory"):
        assert tables.read(root / f"results/tables/{name}.csv")["environment_digest"].notna().all()
    summary = tables.read(root / "results/tables/summary.csv")
    assert summary["accuracy_percent"].notna().all()
    assert "step_time_s" not in summary
    notes = "\n".join(tables.notes_of(root / "results/tables/summary.csv"))
    assert "step_time_s of tiny/generated_reviews is of several devices" in notes
    assert "but Another Processor for rsvd r2" in notes or "for full, lora r2" in notes
