"""The content of files in requests: of a dataset's splits and of a model's folder."""

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.file_inputs import DATASET, STUDY, flip_labels, prepare, write_dataset
from helpers.stored import store_result
from rankwise.core import store
from rankwise.study.plan import Plan

MODEL_FILES = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}


class Project:
    """A project with an entry for a dataset and a model in folders."""

    def __init__(self, root: Path):
        self.root, self.data, self.model = root / "project", root / "data", root / "model"
        (self.root / "config").mkdir(parents=True)
        write_dataset(self.data)
        self.model.mkdir()
        for name, text in MODEL_FILES.items():
            (self.model / name).write_text(text)

    def plan(self, dataset: dict = DATASET) -> Plan:
        shapes = {
            "family": "distilbert",
            "hidden_size": 64,
            "max_positions_tokens": 64,
            "architecture": {"vocab_size": 96},
            "modules": {"query": {"name": "q_lin", "shape": [64, 64]}},
            "head": {"classification": ["classifier"]},
            "weights": {"files": "${MY_MODEL}", "sha256": digest("weights")},
        }
        for kind, entry in (("datasets", dataset), ("models", shapes)):
            (self.root / f"config/{kind}.yaml").write_text(yaml.safe_dump({"mine": entry}))
        return Plan(STUDY, self.root, "config/mine.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    monkeypatch.setenv("MY_DATA", str(made.data))
    monkeypatch.setenv("MY_MODEL", str(made.model))
    monkeypatch.chdir(made.root)
    return made


def digest(content: str | Path) -> str:
    """SHA-256 by the standard library, of a text or of a file."""
    data = content.read_bytes() if isinstance(content, Path) else content.encode()
    return hashlib.sha256(data).hexdigest()


def cell_request(plan: Plan) -> dict:
    return plan.request("train", plan.cells("train")[0])


def with_sha256(project: Project) -> dict:
    splits = {}
    for split, source in DATASET["splits"].items():
        splits[split] = {**source, "sha256": digest(project.data / source["path"])}
    return {**DATASET, "splits": splits}


def test_every_split_has_the_digest_of_its_file(project: Project) -> None:
    splits = cell_request(project.plan())["dataset"]["splits"]
    assert splits["train"] == {"path": "train.tsv", "sha256": digest(project.data / "train.tsv")}
    assert splits["validation"]["sha256"] == digest(project.data / "dev.tsv")
    assert project.plan().input_request("dataset", "mine")["dataset"]["splits"] == splits


def test_an_entry_with_and_one_without_sha256_have_the_same_requests(project: Project) -> None:
    without, given = project.plan(), project.plan(with_sha256(project))
    assert cell_request(without) == cell_request(given)
    assert without.input_request("dataset", "mine") == given.input_request("dataset", "mine")


def test_other_labels_are_another_request(project: Project) -> None:
    before = project.plan().input_digest("dataset", "mine")
    flip_labels(project.data / "dev.tsv")
    assert project.plan().input_digest("dataset", "mine") != before


def test_a_profile_depends_on_no_file(project: Project) -> None:
    grid = {**STUDY["train"][0], "measurements": ["memory"]}
    del grid["seeds"]
    project.plan()
    plan = Plan({**STUDY, "train": [], "profile": [grid]}, project.root)
    before = plan.request("memory", plan.cells("memory")[0])
    flip_labels(project.data / "train.tsv")
    (project.model / "tokenizer.json").write_text("[]")
    plan = Plan({**STUDY, "train": [], "profile": [grid]}, project.root)
    assert plan.request("memory", plan.cells("memory")[0]) == before


def test_a_model_has_the_digest_of_every_file_that_is_copied(project: Project) -> None:
    (project.model / "README.md").write_text("not copied")
    weights = cell_request(project.plan())["model"]["weights"]
    assert weights["contents"] == {name: digest(text) for name, text in MODEL_FILES.items()}
    before = project.plan().input_digest("model", "mine")
    for name in ("config.json", "tokenizer.json", "vocab.txt"):
        (project.model / name).write_text("changed")
        after = project.plan().input_digest("model", "mine")
        assert after != before
        before = after


@pytest.mark.parametrize("lose", ["files", "variable"])
def test_results_stay_valid_on_a_machine_without_the_files(
    lose: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the prepared inputs were made from is known from the store."""
    plan = project.plan()
    before = cell_request(plan)
    prepare(plan, project.root)
    store_result(project.root, plan.input_request("model", "mine"), lambda _: {})
    if lose == "files":
        shutil.rmtree(project.data)
        shutil.rmtree(project.model)
    else:
        monkeypatch.delenv("MY_DATA")
        monkeypatch.delenv("MY_MODEL")
    assert cell_request(project.plan()) == before


def test_a_record_of_another_file_is_not_used(project: Project) -> None:
    prepare(project.plan(), project.root)
    shutil.rmtree(project.data)
    splits = {**DATASET["splits"], "validation": {"path": "test.tsv"}}
    request = project.plan({**DATASET, "splits": splits}).input_request("dataset", "mine")
    assert request["dataset"]["splits"]["validation"]["sha256"] is None


def test_a_file_that_is_nowhere_has_the_digest_of_its_entry_or_none(project: Project) -> None:
    given = with_sha256(project)
    before = project.plan().input_request("dataset", "mine")
    shutil.rmtree(project.data)
    shutil.rmtree(project.model)
    assert project.plan(given).input_request("dataset", "mine") == before
    splits = project.plan().input_request("dataset", "mine")["dataset"]["splits"]
    assert {split["sha256"] for split in splits.values()} == {None}
    assert project.plan().model_entry("mine")["weights"]["contents"] is None


def test_of_several_prepared_inputs_the_studys_own_decides(project: Project) -> None:
    """Two were made from two contents of one file, which is gone."""
    prepare(project.plan(), project.root)
    old = project.plan().input_request("dataset", "mine")
    flip_labels(project.data / "dev.tsv")
    prepare(project.plan(), project.root)
    shutil.rmtree(project.data)
    splits = project.plan().input_request("dataset", "mine")["dataset"]["splits"]
    assert splits["train"] == old["dataset"]["splits"]["train"]  # both agree on it
    assert splits["validation"]["sha256"] is None
    kept = project.root / store.DEFAULT / store.place(old)
    store.link(kept, project.root / "results/mine" / store.place(old), project.root)
    assert project.plan().input_request("dataset", "mine") == old
