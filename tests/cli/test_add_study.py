"""`rankwise add study`: a study that plans as it is, or one sentence and no file."""

import shutil
from pathlib import Path

import pytest

from helpers.model_folders import save
from helpers.repository import ROOT
from rankwise.cli import add_study, main
from rankwise.core.yaml_files import load, read_yaml
from rankwise.study.plan import Plan


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the examples' data and entries, where Snakemake has no Snakefile."""
    shutil.copytree(ROOT / "docs/examples", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main.main(["add", "study", *words]) == 1
    return capsys.readouterr().err


def test_a_study_of_entries_plans_and_says_why(project: Path, capsys) -> None:
    words = ["--model", "tiny", "--dataset", "my_reviews", "--name", "first", "--seeds", "4", "5"]
    assert main.main(["add", "study", *words]) == 0
    assert "snakemake --configfile config/first.yaml" in capsys.readouterr().out
    text = (project / "config/first.yaml").read_text()
    assert all(
        " # " in line for line in text.splitlines() if line.startswith(("name", "device", "data"))
    )
    plan = Plan(read_yaml(project / "config/first.yaml", "first"), project, "config/first.yaml")
    trained = plan.cells("train")
    assert [cell.method for cell in trained] == [
        name for name in ("full", "head_only", "lora", "rsvd") for _ in range(2)
    ]
    assert {cell.seed for cell in trained} == {4, 5}
    assert {(cell.model, cell.dataset) for cell in trained} == {("tiny", "my_reviews")}


@pytest.mark.parametrize("name", ["my-study", "Mine.2", "2026", "null"])
def test_a_study_may_have_any_name_that_the_schema_allows(project: Path, name: str) -> None:
    """A name that YAML would read as a number or as null is written in quotes."""
    study = add_study.NewStudy(name, "tiny", "my_reviews", "cpu", ["full"], [0])
    assert add_study._new_file(name, project) == f"config/{name}.yaml"
    assert load(add_study.planned_text(study, project))["name"] == name


def test_methods_that_the_model_cannot_do_are_left_out_with_the_reason(project: Path) -> None:
    """GPT-2 has one matrix for query, key and value, so `lora`, which names them, is refused."""
    study = add_study.NewStudy("g", "gpt2", "wikitext2", "cpu", ["full", "lora"], [0])
    text = add_study.planned_text(study, project)
    assert "      # left out: lora, because config/methods.yaml: lora.options.targets: " in text
    assert "      - full" in text
    # LoRA on whatever matrices there are takes its place.
    trained = load(text)["train"][0]["methods"]
    assert trained == ["full", "lora_all"]


def test_data_may_be_a_file(project: Path) -> None:
    study = add_study.NewStudy("f", "tiny", "data/reviews/train.csv", "cpu", ["full"], [0])
    text = add_study.planned_text(study, project)
    assert "data: data/reviews/train.csv #" in text
    # 48 rows, of which a fifth is reported on: 38 rows are 2 updates of 16 in each pass.
    assert "epochs: 10 #" in text


@pytest.mark.parametrize(("words", "sentence"), [
    (["--model", "tiyn", "--dataset", "my_reviews"], "config/mine.yaml: model: got 'tiyn', allowed: "),
    (["--model", "tiny", "--dataset", "none.csv"], "config/mine.yaml: data: got 'none.csv', allowed: a file or folder"),
    (["--model", "tiny", "--dataset", "my_reviews", "--methods", "full", "lorra"], "rankwise add study: --methods: got 'lorra', allowed: "),
    (["--model", "tiny", "--dataset", "wikitext2"], "got 'language_modelling', allowed: tasks that tiny has a head for"),
    (["--name", "My study"], "--name: got 'My study', allowed: a name of letters, digits, _, - and . inside"),
    (["--name", "evaluations"], "--name: got 'evaluations', allowed: "),
    (["--name", "models"], "--name: got 'models', allowed: "),
])  # fmt: skip
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    project: Path, capsys, words, sentence
) -> None:
    before = sorted(project.rglob("config/*"))
    assert sentence in refused(capsys, *words)
    assert sorted(project.rglob("config/*")) == before


def test_a_model_without_a_tokenizer_is_refused_before_a_study_is_written(
    project: Path, capsys
) -> None:
    folder = save("bert", project / "models/plain")
    for file in folder.glob("*token*"):
        file.unlink()
    assert main.main(["add", "model", "models/plain"]) == 0
    said = refused(capsys, "--model", "plain", "--dataset", "my_reviews", "--name", "new")
    assert "config/models.yaml: plain.weights.files: models/plain has no tokenizer, allowed" in said
    assert not (project / "config/new.yaml").exists()


def test_a_study_that_is_there_stays(project: Path, capsys) -> None:
    (project / "config/mine.yaml").write_text("name: kept\n")
    assert "config/mine.yaml: got a file that is there already" in refused(
        capsys, "--model", "tiny"
    )
    assert (project / "config/mine.yaml").read_text() == "name: kept\n"
