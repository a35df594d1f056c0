"""Two clones run one half each of a real study, and a third clone collects both.

Snakemake then makes nothing but tables, figures and the report.
"""

import json
import shutil
from pathlib import Path

import pytest

from helpers.merging import contents, own_store, rankwise
from helpers.repository import copy_repository, edit, run_snakemake
from helpers.stored import change, made
from helpers.table_notes import notes_of
from rankwise.analysis import tables
from rankwise.core import result

pytestmark = pytest.mark.slow

STUDY = "tests/studies/collect.yaml"
RESULTS = "results/collect"
RUN = RESULTS + "/runs/tiny/generated_reviews/{}/seed0/train.json"
FULL, LORA, RSVD = (RUN.format(name) for name in ("full/r0", "lora/r2", "rsvd/r2"))
MEMORY = RESULTS + "/profiles/tiny/generated_reviews/{}/r2/memory.json"
MEASURED = ("dataset", "model", "train", "memory", "predict")


def pending(root: Path) -> dict[str, list[str]]:
    """The jobs that would measure something now, and why; tables, figures and texts are left out."""
    done = rankwise(root, "plan", "--study", STUDY, "--json")
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    # No clone here has built the report, so a whole plan always has it.
    assert any(f"{RESULTS}/report.html" in job["files"] for job in jobs)
    return {f"{job['job']} {job['name']}": job["why"] for job in jobs if job["job"] in MEASURED}


def build(root: Path, *targets: str) -> None:
    done = run_snakemake(root, *targets, "--configfile", STUDY, "--cores", "2")
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
    build(real_clone(folder / "other"), RSVD, LORA, *map(MEMORY.format, ("lora", "rsvd")))
    return folder


@pytest.fixture
def third(halves: Path, tmp_path: Path) -> Path:
    """A clone that has collected both halves."""
    root = real_clone(tmp_path / "third")
    done = rankwise(root, "collect", halves / "one", halves / "other/results")
    assert done.returncode == 0, done.stderr
    return root


def test_after_collecting_both_halves_nothing_is_left_to_measure(halves: Path, third: Path) -> None:
    both = {**contents(own_store(halves / "one")), **contents(own_store(halves / "other"))}
    assert set(contents(own_store(third))) == set(both)
    assert pending(third) == {}
    build(third, f"{RESULTS}/tables/summary.csv")
    assert set(contents(own_store(third))) == set(both)


def test_an_edit_after_collecting_reruns_the_results_that_it_changes(third: Path) -> None:
    edit(
        third / "src/rankwise/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha"
    )
    jobs = pending(third)
    cell = "tiny/generated_reviews/lora/r2"
    assert set(jobs) == {f"train {cell}/seed0", f"memory {cell}"}


def test_real_results_that_disagree_are_refused_by_name(
    halves: Path, third: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(halves / "other", tmp_path / "edited", symlinks=True))
    file = made(other, LORA).resolve()
    stored = result.read(file)
    before = stored["metrics"]["accuracy_fraction"]
    change(file, metrics={**stored["metrics"], "accuracy_fraction": before / 2})
    had = contents(own_store(third))
    refused = rankwise(third, "collect", halves / "one", other)
    assert refused.returncode == 1
    place = file.relative_to(own_store(other).resolve())
    for part in (
        f"{place}: metrics.accuracy_fraction: got {before} in results/store/{place} (",
        f"but {before / 2} in {file} (",
        "Nothing was copied",
    ):
        assert part in refused.stderr
    assert contents(own_store(third)) == had
    assert pending(third) == {}


def test_tables_of_two_machines_name_them_and_compare_scores_but_not_times(
    halves: Path, tmp_path: Path
) -> None:
    root = real_clone(tmp_path / "third")
    other = Path(shutil.copytree(halves / "other", tmp_path / "machine", symlinks=True))
    for file in own_store(other).glob("runs/**/train.json"):
        environment = result.read(file)["environment"]
        change(file, environment={**environment, "processor": "Another Processor"})
    done = rankwise(root, "collect", halves / "one", other)
    assert done.returncode == 0, done.stderr
    names = [f"tables/{name}.csv" for name in ("summary", "memory", "history")]
    build(root, *(f"{RESULTS}/{name}" for name in (*names, "figures/metric_by_rank.png")))
    folder = root / RESULTS / "tables"
    runs = tables.read(folder / "runs.csv").set_index("method")
    assert set(runs["device"]) == {"cpu"}
    assert runs.loc["rsvd", "device_name"] == "Another Processor" != runs.loc["full", "device_name"]
    assert runs["environment_digest"].nunique() == 2
    for name in ("history", "memory"):
        assert tables.read(folder / f"{name}.csv")["environment_digest"].notna().all()
    summary = tables.read(folder / "summary.csv")
    assert summary["accuracy_percent"].notna().all()
    assert "step_time_s" not in summary
    notes = "\n".join(notes_of(folder / "summary.csv"))
    assert "step_time_s of tiny/generated_reviews is of several devices" in notes
    assert "but Another Processor for rsvd r2" in notes or "for full, lora r2" in notes
