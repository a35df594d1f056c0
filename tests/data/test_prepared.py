"""A job reads prepared inputs only if they are what was prepared."""

import copy
from pathlib import Path

import pytest
import yaml

from helpers.file_inputs import (
    DATASET,
    STUDY,
    flip_labels,
    prepare,
    write_dataset,
    write_model,
)
from helpers.repository import ROOT
from rankwise.core import result
from rankwise.data import datasets, model_files
from rankwise.data.prepared import load_data, model_folder, read_split
from rankwise.models import build
from rankwise.models.tasks import classification
from rankwise.study.plan import Plan, read_plan


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The request of a training run, in a project with both inputs prepared."""
    monkeypatch.setenv("MY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MY_MODEL", str(tmp_path / "model"))
    root = tmp_path / "project"
    (root / "config").mkdir(parents=True)
    monkeypatch.chdir(root)
    write_dataset(tmp_path / "data")
    tiny = read_plan(ROOT, "config/demo.yaml").library["models"]["tiny"]
    entry = write_model(tmp_path / "model", tiny)
    for kind, own in (("datasets", DATASET), ("models", entry)):
        Path(f"config/{kind}.yaml").write_text(yaml.safe_dump({"mine": own}))
    plan = Plan(STUDY, root)
    prepare(plan, root)
    request = plan.input_request("model", "mine")
    path = root / plan.input_path("model", "mine")
    result.write(path, request, model_files.prepare_model(request, path.parent), {})
    return plan.request("train", plan.cells("train")[0])


DATA, MODEL = Path("results/inputs/datasets/mine"), Path("results/inputs/models/mine")


def load(request: dict):
    return load_data(request, build.tokenizer(model_folder(request)), seed=0)


def test_what_was_prepared_is_read(request_: dict) -> None:
    data = load(request_)
    assert (len(data.train), len(data.selection), len(data.report)) == (32, 8, 16)
    assert [example["labels"] for example in data.report] == [i % 2 for i in range(16)]
    assert len(read_split(request_, "mine", "train")) == 32
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in MODEL.iterdir()} == {*expected, "model.json"}


@pytest.mark.parametrize("split", ["train", "selection", "validation"])
def test_a_split_that_was_cut_is_refused(split: str, request_: dict) -> None:
    """Also where its examples are in the cache from before."""
    load(request_)
    file = DATA / f"{split}.arrow"
    recorded = result.read(DATA / "dataset.json")["splits"][split]["sha256"]
    file.write_bytes(file.read_bytes()[:-100])
    message = (
        rf"{file}: sha256 is \w+, allowed: {recorded}, which dataset\.json recorded; "
        rf"delete {DATA}/dataset\.json and run snakemake again"
    )
    with pytest.raises(ValueError, match=message):
        load(request_)


def test_a_split_that_is_gone_is_refused(request_: dict) -> None:
    (DATA / "selection.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"selection\.arrow: not there"):
        load(request_)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_with_another_file_is_refused(name: str, request_: dict) -> None:
    file = MODEL / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match=rf"{file}: sha256 is .* delete {MODEL}/model\.json"):
        load(request_)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}: not there"):
        load(request_)


def test_a_file_that_was_added_to_a_model_is_refused(request_: dict) -> None:
    (MODEL / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"adapter_config\.json: not a file of the prepared model"):
        load(request_)


def test_a_file_of_an_earlier_model_does_not_stay(request_: dict) -> None:
    """transformers would read it."""
    (MODEL / "vocab.txt").write_text("old")
    prepared = result.read(MODEL / "model.json")["request"]
    model_files.prepare_model(prepared, MODEL)
    assert not (MODEL / "vocab.txt").exists()
    load(request_)


def test_a_file_that_changed_after_planning_is_not_prepared(request_: dict, tmp_path: Path) -> None:
    planned = result.read(DATA / "dataset.json")["request"]
    unknown = copy.deepcopy(planned)
    unknown["dataset"]["splits"]["train"]["sha256"] = None
    with pytest.raises(ValueError, match="it was not there when the workflow was planned"):
        datasets.prepare_dataset(unknown, tmp_path / "again")
    flip_labels(tmp_path / "data/train.tsv")
    with pytest.raises(ValueError, match=r"train\.tsv: sha256 is .*; run snakemake again"):
        datasets.prepare_dataset(planned, tmp_path / "again")
    model = result.read(MODEL / "model.json")["request"]
    (tmp_path / "model/vocab.txt").write_text("new")
    with pytest.raises(ValueError, match=r"vocab\.txt: sha256 is \w+, allowed: None"):
        model_files.prepare_model(model, tmp_path / "again")


def test_three_hundred_cells_tokenise_once(request_: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, rows = classification.encode, []
    monkeypatch.setattr(
        classification, "encode", lambda given, *rest: rows.extend(given) or encode(given, *rest)
    )
    tokenizer = build.tokenizer(MODEL)
    for seed in range(300):
        request = copy.deepcopy(request_)
        request["cell"]["seed"] = seed
        data = load_data(request, tokenizer, seed)
        assert len(data.train) == 32
    splits = 3  # the first row of each is encoded once more, to learn its columns
    assert len(rows) == 32 + 8 + 16 + splits
