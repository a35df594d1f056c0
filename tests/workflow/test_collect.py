"""Two clones run one half each of a real study, and a third clone collects both.

Snakemake then makes nothing but tables, figures and the report.
"""

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
MEMORY = "results/profiles/tiny/generated_reviews/{}/r2/memory.json"
MEASURED = ("results/inputs", "results/runs", "results/profiles")


def pending(root: Path) -> list[dict]:
    """The jobs that Snakemake would run now, according to `rankwise plan`.

    Jobs that only summarise results (tables, figures, the report) are left out.
    """
    done = rankwise(root, "plan", "--study", REAL, "--json")
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    # No clone here has built the report, so a complete plan always contains it.
    assert any("results/report.html" in job["files"] for job in jobs)
    return [job for job in jobs if job["files"][0].startswith(MEASURED)]


def build(root: Path, *targets: str) -> None:
    done = run_snakemake(root, *targets, "--configfile", REAL, "--cores", "2")
    assert done.returncode == 0, done.stderr[-4000:]


def real_clone(root: Path) -> Path:
    """A clone whose tiny model is pre-trained for two updates only."""
    copy_repository(root)
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    return root


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clones, `one` and `other`, each with half of the study. Both have trained LoRA."""
    folder = tmp_path_factory.mktemp("collect")
    build(real_clone(folder / "one"), FULL, LORA)
    memory_profiles = [MEMORY.format(name) for name in ("lora", "rsvd")]
    build(real_clone(folder / "other"), RSVD, LORA, *memory_profiles)
    return folder


@pytest.fixture
def third(halves: Path, tmp_path: Path) -> Path:
    """A clone that has collected both halves."""
    root = real_clone(tmp_path / "third")
    done = rankwise(root, "collect", halves / "one", halves / "other/results", "--study", REAL)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 results are there, 0 are to be made; 8 files copied, 0 were here" in done.stdout
    return root


@pytest.mark.slow
def test_after_collecting_both_halves_nothing_is_left_to_measure(third: Path) -> None:
    assert pending(third) == []


@pytest.mark.slow
def test_an_edit_after_collecting_reruns_the_results_that_it_changes(third: Path) -> None:
    source = third / "src/rankwise/methods/lora.py"
    edit(source, "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha")
    jobs = pending(third)
    assert {job["files"][0] for job in jobs} == {LORA, MEMORY.format("lora")}
    reasons = [job["why"] for job in jobs]
    assert {why for whys in reasons for why in whys} == {"src/rankwise/methods/lora.py changed"}


@pytest.mark.slow
def test_a_clone_with_a_copy_of_the_results_is_incremental(third: Path, tmp_path: Path) -> None:
    root = real_clone(tmp_path / "fourth")
    shutil.copytree(third / "results", root / "results", dirs_exist_ok=True)
    assert pending(root) == []
    edit(root / REAL, "seeds: [0]", "seeds: [0, 1]")
    expected = {path.replace("seed0", "seed1") for path in (FULL, LORA, RSVD)}
    assert {job["files"][0] for job in pending(root)} == expected


@pytest.mark.slow
def test_a_collected_result_that_replaces_a_stale_one_is_not_rerun(
    halves: Path, tmp_path: Path
) -> None:
    """Snakemake's metadata of the stale result does not rerun the collected one.

    Neither do inputs that were prepared in this clone after the other clones' training.
    """
    root = real_clone(tmp_path / "clone")
    rate = ("dropout: 0.1}\n  learning_rate: 2.0e-4", "dropout: 0.1}\n  learning_rate: 3.0e-4")
    edit(root / "config/methods.yaml", *rate)
    build(root, LORA)
    edit(root / "config/methods.yaml", *reversed(rate))
    reasons = [job["why"] for job in pending(root) if job["files"][0] == LORA]
    assert reasons == [["method.learning_rate: 0.0003 -> 0.0002"]]
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
    values = (f"{before} in this clone", f"{before / 2} in {other}")
    for part in (LORA, "metrics.accuracy_fraction", *values, "nothing was copied"):
        assert part in refused.stderr
    assert pending(third) == []
    assert rankwise(third, "collect", other, "--study", REAL, "--prefer", other).returncode == 0
    assert result.read(third / LORA) == result.read(other / LORA)
    assert pending(third) == []


@pytest.mark.slow
def test_tables_of_two_machines_name_them_and_compare_scores_but_not_times(
    halves: Path, tmp_path: Path
) -> None:
    root = real_clone(tmp_path / "third")
    other = shutil.copytree(halves / "other", tmp_path / "machine")
    for file in other.glob("results/runs/**/train.json"):
        environment = result.read(file)["environment"]
        change(file, environment={**environment, "processor": "Another Processor"})
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
