"""A study that names a model and data by their place, without entries."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.study import inline
from rankwise.study.plan import Plan

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs/examples/data", tmp_path / "data")
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What is derived, without torch: the entry of `tiny` for every model."""
    calls: list[tuple] = []
    entry = yaml.safe_load((ROOT / "config/models.yaml").read_text())["tiny"]
    derive = inline._ask

    def ask(plural: str, place: str, arguments: list[str], *others: object) -> dict:
        calls.append((plural, arguments))
        if plural == "models":
            return {"name": "my_bert", "entry": entry}
        return derive(plural, place, arguments, *others)

    monkeypatch.setattr(inline, "_ask", ask)
    return calls


def study(**changes: object) -> dict:
    grid = {"methods": ["full"], "seeds": [0]}
    return {"name": "mine", "question": "?", "device": "cpu", "train": [grid], **changes}


def test_model_and_data_are_for_every_grid_that_names_none(project: Path) -> None:
    grids = [
        {"methods": ["full"], "seeds": [0]},
        {"methods": ["lora"], "seeds": [0], "datasets": ["generated_reviews"]},
    ]
    profile = [{"methods": ["full"], "measurements": ["memory"]}]
    given = study(model="tiny", data="data/reviews/train.csv", train=grids, profile=profile)
    plan = Plan(given, project)
    assert [(cell.dataset, cell.method) for cell in plan.cells("train")] == [
        ("train", "full"),
        ("generated_reviews", "lora"),
    ]
    assert [cell.dataset for cell in plan.cells("memory")] == ["train"]
    assert "models" not in given["train"][0]  # Snakemake's config is left as it is


def test_the_entry_is_the_one_that_the_command_writes(project: Path, monkeypatch) -> None:
    """So the request is the same, and nothing runs again after `rankwise add dataset`."""
    from rankwise.cli import main

    monkeypatch.chdir(project)
    given = study(model="tiny", data="data/reviews/train.csv")
    before = Plan(given, project)
    assert main.main(["add", "dataset", "data/reviews/train.csv"]) == 0
    after = Plan({**given, "data": "train"}, project)
    assert before.input_digest("dataset", "train") == after.input_digest("dataset", "train")
    assert before.cell_digest("train", before.cells("train")[0]) == after.cell_digest(
        "train", after.cells("train")[0]
    )


def test_a_place_is_derived_once_and_again_when_its_file_changes(project: Path, asked) -> None:
    given = study(model="tiny", data="data/reviews/train.csv")
    Plan(given, project)
    first = Plan(given, project).library["datasets"]["train"]
    assert asked == [("datasets", ["data/reviews/train.csv"])]
    file = project / "data/reviews/train.csv"
    file.write_text(file.read_text() + "a last review,2\n")
    second = Plan(given, project).library["datasets"]["train"]
    assert len(asked) == 2
    assert first["splits"]["train"]["sha256"] != second["splits"]["train"]["sha256"]


def test_a_remembered_entry_that_was_changed_is_derived_again(project: Path, asked) -> None:
    given = study(model="tiny", data="data/reviews/train.csv")
    first = Plan(given, project).library["datasets"]["train"]
    (note,) = (project / "results/.cache/entries").glob("*.json")
    text = note.read_text()
    length = f'"max_length_tokens": {first["max_length_tokens"]}'
    assert length in text
    note.write_text(text.replace(length, '"max_length_tokens": 7'))
    assert Plan(given, project).library["datasets"]["train"] == first
    assert len(asked) == 2


def test_a_member_of_models_may_be_a_place(project: Path, asked) -> None:
    (project / "my_bert").mkdir()
    (project / "my_bert/config.json").write_text("{}")
    grid = {
        "models": ["tiny", "./my_bert"],
        "datasets": ["generated_reviews"],
        "methods": ["full"],
        "seeds": [0],
    }
    plan = Plan(study(train=[grid]), project)
    assert [cell.model for cell in plan.cells("train")] == ["tiny", "my_bert"]
    (project / "my_bert/config.json").write_text(json.dumps({"hidden_size": 8}))
    Plan(study(train=[grid]), project)
    assert asked == [("models", ["./my_bert"])] * 2


def test_a_hub_id_is_derived_at_its_revision(project: Path, asked) -> None:
    plan = Plan(study(model=f"owner/name@{REVISION}", data="generated_reviews"), project)
    assert asked == [("models", ["owner/name", "--revision", REVISION])]
    assert [cell.model for cell in plan.cells("train")] == ["my_bert"]


def test_a_name_that_an_entry_has_gets_an_ending(project: Path) -> None:
    """The workflow has another dataset `sst2`; results of the two must not be taken for each other."""
    shutil.copy(project / "data/reviews/train.csv", project / "sst2.csv")
    plan = Plan(study(model="tiny", data="sst2.csv"), project)
    assert [cell.dataset for cell in plan.cells("train")] == ["sst2_own"]
    assert "hub" in plan.library["datasets"]["sst2"]


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"model": "tiny", "data": "data/none.csv"}, "config/mine.yaml: data: got 'data/none.csv', allowed: a file or folder that is there"),
    ({"model": "tiny", "data": "generated_review"}, "config/mine.yaml: data: got 'generated_review', allowed: ag_news, ag_news_alps_files, "),
    ({"model": "./none", "data": "generated_reviews"}, "config/mine.yaml: model: got './none', allowed: a folder that is there, a repository on the hub with its revision"),
    ({"model": "owner/name@main", "data": "generated_reviews"}, "40 hexadecimal digits"),
    ({"model": "tiny", "data": "$NOT_SET/a.csv"}, "got '$NOT_SET/a.csv', allowed: a place on this machine"),
    ({"model": "tiny", "data": "two.csv"}, "what `rankwise add dataset` can read; it says: "),
    ({"model": "tiny", "data": "two.csv"}, "give the option to `rankwise add dataset two.csv`, and name its entry here"),
    ({"data": "generated_reviews"}, "config/mine.yaml: train.0.models: got 'nothing', allowed: entries of config/models.yaml or places, or one for all grids: `model` of the study"),
    ({"model": ["tiny"], "data": "generated_reviews"}, "config/mine.yaml: model: got ['tiny'], allowed: a text"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(project: Path, changes: dict, sentence: str) -> None:
    rows = "".join(f"some words of row {row},{row % 2},{row % 3}\n" for row in range(12))
    (project / "two.csv").write_text("text,one,two\n" + rows)
    with pytest.raises(ConfigError) as error:
        Plan(study(**changes), project, "config/mine.yaml")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_planned_study_can_be_planned_again(project: Path, asked) -> None:
    """The jobs of the page and of the artifact plan the study that their request holds."""
    (project / "my_bert").mkdir()
    first = Plan(study(model="./my_bert", data="data/reviews/train.csv"), project)
    again = Plan(json.loads(json.dumps(first.study)), project)
    (cell,) = first.cells("train")
    assert (cell.model, cell.dataset) == ("my_bert", "train")
    assert again.cells("train") == [cell]
    assert again.cell_digest("train", cell) == first.cell_digest("train", cell)
