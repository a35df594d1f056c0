"""Halves of a real study, made in two clones, are one in a third: Snakemake has nothing left to make but tables."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.merging import change, rankwise
from helpers.repository import copy_repository, edit, run_snakemake
from rankwise.analysis import tables
from rankwise.core import result

REAL = "tests/studies/collect.yaml"
RUNS = "results/runs/tiny/generated_reviews/{}/seed0/train.json"
FULL, LORA, RSVD = (RUNS.format(name) for name in ("full/r0", "lora/r2", "rsvd/r2"))


def pending(root: Path) -> list[dict]:
    """What Snakemake would make now, as `rankwise plan` hears it, less what is made from results."""
    done = rankwise(root, "plan", "--study", REAL, "--json")
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    assert any("results/report.html" in job["files"] for job in jobs)  # downstream of all
    return [
        job
        for job in jobs
        if job["files"][0].startswith(("results/inputs", "results/runs", "results/profiles"))
    ]


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
        *(
            f"results/profiles/tiny/generated_reviews/{name}/r2/memory.json"
            for name in ("lora", "rsvd")
        ),
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
    edit(
        third / "src/rankwise/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha"
    )
    found = pending(third)
    assert {job["files"][0] for job in found} == {
        LORA,
        "results/profiles/tiny/generated_reviews/lora/r2/memory.json",
    }
    assert {why for job in found for why in job["why"]} == {"src/rankwise/methods/lora.py changed"}


@pytest.mark.slow
def test_a_clone_with_a_copy_of_the_results_is_incremental(third: Path, tmp_path: Path) -> None:
    root = real_clone(tmp_path / "fourth")
    shutil.copytree(third / "results", root / "results", dirs_exist_ok=True)
    assert pending(root) == []
    edit(root / REAL, "seeds: [0]", "seeds: [0, 1]")
    assert {job["files"][0] for job in pending(root)} == {
        path.replace("seed0", "seed1") for path in (FULL, LORA, RSVD)
    }


@pytest.mark.slow
def test_what_snakemake_remembers_of_a_stale_result_does_not_rerun_the_collected_one(
    halves: Path, tmp_path: Path
) -> None:
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
def test_real_results_that_disagree_are_refused_by_name(
    halves: Path, third: Path, tmp_path: Path
) -> None:
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
def test_tables_of_two_machines_name_them_and_compare_scores_but_no_times(
    halves: Path, tmp_path: Path
) -> None:
    root, other = (
        real_clone(tmp_path / "third"),
        shutil.copytree(halves / "other", tmp_path / "machine"),
    )
    for file in other.glob("results/runs/**/train.json"):
        change(
            file, environment={**result.read(file)["environment"], "processor": "Another Processor"}
        )
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
