"""Content decides: what reruns when a user's own files change, on the real workflow."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helpers.file_inputs import DATASET, GRID, STUDY, flip_labels, write_dataset, write_model
from helpers.repository import CLEAN, copy_repository, run_snakemake
from helpers.stored import made
from rankwise.core.provenance import file_sha256

pytestmark = pytest.mark.slow

FILE = "config/mine.yaml"
OTHER = {**GRID, "datasets": ["generated_reviews"]}
RUN = "results/mine/runs/mine/{}/head_only/r0/seed{}/train.json"
TABLE = "results/mine/tables/runs.csv"
MINE, REVIEWS = RUN.format("mine", 0), RUN.format("generated_reviews", 0)
MY_DATASET = "results/mine/inputs/datasets/mine/dataset.json"
MY_MODEL = "results/mine/inputs/models/mine/model.json"


class Project:
    """A clone with a study on files beside it."""

    def __init__(self, folder: Path):
        self.root, self.data, self.model = (folder / name for name in ("clone", "data", "model"))
        self.environment = {"MY_DATA": str(self.data), "MY_MODEL": str(self.model)}

    def write(self, dataset: dict = DATASET, seeds: tuple[int, ...] = (0,)) -> None:
        """The study and the entry of its dataset."""
        grids = [{**grid, "seeds": list(seeds)} for grid in (GRID, OTHER)]
        (self.root / FILE).write_text(yaml.safe_dump({**STUDY, "train": grids}))
        file = self.root / "config/datasets.yaml"
        entries = yaml.safe_load(file.read_text())
        entries["generated_reviews"]["generated"]["rows"] = {"train": 1100, "validation": 20}
        entries["generated_reviews"]["max_unknown_fraction"] = 1  # the model has words of its own
        file.write_text(yaml.safe_dump({**entries, "mine": dataset}))

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        return run_snakemake(self.root, "--configfile", FILE, *arguments, **self.environment)

    def pending(self) -> dict[str, list[str]]:
        """Results and inputs that would be made now, without their digests, with the reasons."""
        command = [sys.executable, "-m", "rankwise.cli.main", "plan", "--study", FILE, "--json"]
        environment = {**CLEAN, **self.environment, "PYTHONPATH": str(self.root / "src")}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        jobs = json.loads(done.stdout)["jobs"]
        found = {}
        for job in jobs:
            path = Path(job["files"][0])
            if path.name in ("train.json", "dataset.json", "model.json"):
                found[str(path.parent.with_name(path.name))] = job["why"]
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose study has run."""
    project = Project(tmp_path_factory.mktemp("files"))
    copy_repository(project.root)
    write_dataset(project.data)
    models = project.root / "config/models.yaml"
    entries = yaml.safe_load(models.read_text())
    entries["mine"] = write_model(project.model, entries["tiny"])
    models.write_text(yaml.safe_dump(entries))
    project.write()
    done = project.snakemake("--cores", "2", TABLE)
    assert done.returncode == 0, done.stderr[-5000:]
    assert project.pending() == {}
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Iterator[Project]:
    """The finished project; its files, entries and inputs are put back after the test."""
    parts = [finished.root / name for name in ("config", "results", ".snakemake")]
    folders = [finished.data, finished.model, *parts]
    for folder in folders:
        shutil.copytree(folder, tmp_path / folder.name, symlinks=True)
    yield finished
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / folder.name, folder, symlinks=True)


def test_flipped_labels_rerun_the_dataset_and_its_cells(project: Project) -> None:
    flip_labels(project.data / "dev.tsv")
    pending = project.pending()
    assert set(pending) == {MY_DATASET, MINE}
    assert [why.split(":")[0] for why in pending[MY_DATASET]] == [
        "dataset.splits.validation.sha256"
    ]
    before = json.loads(made(project.root, MINE).read_text())["metrics"]["accuracy_fraction"]
    old = made(project.root, MINE)
    done = project.snakemake("--cores", "2", TABLE)
    assert done.returncode == 0, done.stderr[-5000:]
    (new,) = set(old.parents[1].glob("*/train.json")) - {old}
    after = json.loads(new.read_text())["metrics"]["accuracy_fraction"]
    # The head, trained on the same rows, is right where it was wrong.
    assert after == pytest.approx(1 - before)


@pytest.mark.parametrize("change", [
    lambda project: [file.touch() for file in project.data.iterdir()],
    lambda project: [file.touch() for file in project.model.iterdir()],
    lambda project: project.write({**DATASET, "splits": {
        split: {**source, "sha256": file_sha256(project.data / source["path"])}
        for split, source in DATASET["splits"].items()
    }}),
    lambda project: shutil.rmtree(project.data),
    lambda project: shutil.rmtree(project.model),
    lambda project: shutil.rmtree(project.root / "results/.cache"),
    lambda project: shutil.rmtree(project.root / "results/.cache/tokenised"),
], ids=["touched data", "touched model", "sha256 in the entry", "no data here", "no model here",
        "no cache of digests", "no cache of examples"])  # fmt: skip
def test_what_changes_no_content_reruns_nothing(
    change: Callable[[Project], None], project: Project
) -> None:
    change(project)
    assert project.pending() == {}


def test_another_tokenizer_reruns_the_model_and_its_cells(project: Project) -> None:
    file = project.model / "tokenizer.json"
    file.write_text(file.read_text().replace("word19", "wordXX"))
    assert set(project.pending()) == {MY_MODEL, MINE, REVIEWS}


def test_a_file_that_contradicts_its_entry_is_refused_before_any_job(project: Project) -> None:
    sha256 = file_sha256(project.data / "dev.tsv")
    splits = {**DATASET["splits"], "validation": {"path": "dev.tsv", "sha256": sha256}}
    project.write({**DATASET, "splits": splits}, seeds=(0, 1))
    flip_labels(project.data / "dev.tsv")
    done = project.snakemake("--cores", "1", TABLE)
    assert done.returncode != 0
    assert "config/datasets.yaml: mine.splits.validation: sha256 of" in done.stderr
    assert f"allowed: {sha256}" in done.stderr
    assert "Execute" not in done.stderr


def test_a_prepared_split_that_was_cut_is_prepared_again(project: Project) -> None:
    """The new cell would have been scored on a quarter of the rows."""
    project.write(seeds=(0, 1))
    file = made(project.root, MY_DATASET).resolve().with_name("validation.arrow")
    sha256 = file_sha256(file)
    file.write_bytes(file.read_bytes()[:-300])
    done = project.snakemake("--cores", "1", RUN.format("mine", 1))
    assert done.returncode == 0, done.stderr[-5000:]
    aside = file.parent.with_name(f"{file.parent.name}.damaged-1")
    assert f"validation.arrow beside it: sha256 is {file_sha256(aside / file.name)}" in done.stderr
    assert f"set aside as {aside.name}, and made anew" in done.stderr
    assert file_sha256(file) == sha256
    assert made(project.root, RUN.format("mine", 1)).is_file()


def test_rows_are_tokenised_once_for_all_cells(project: Project) -> None:
    """Over processes: each job is one."""
    project.write(seeds=(0, 1, 2))
    shutil.rmtree(project.root / "results/.cache/tokenised")
    shutil.rmtree(project.root / "logs")
    done = project.snakemake("--cores", "2", *(RUN.format("mine", seed) for seed in (1, 2)))
    assert done.returncode == 0, done.stderr[-5000:]
    logs = [
        file.read_text() for file in (project.root / "logs/mine/train/mine/mine").rglob("*.log")
    ]
    assert len(logs) == 2
    for split in ("train", "selection", "validation"):
        lines = [line for log in logs for line in log.splitlines() if f"tokenised {split}:" in line]
        assert len(lines) == 2
        assert sum("from the cache" in line for line in lines) == 1
