"""A job reads prepared inputs only if they are what was prepared."""

import copy
import functools
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
from helpers.stored import store_result
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
    store_result(root, request, functools.partial(model_files.prepare_model, request))
    return plan.request("train", plan.cells("train")[0])


@pytest.fixture
def data(request_: dict) -> Path:
    """The folder of the prepared dataset."""
    return prepared_folder("dataset", request_)


@pytest.fixture
def model(request_: dict) -> Path:
    """The folder of the prepared model."""
    return prepared_folder("model", request_)


def prepared_folder(kind: str, request: dict) -> Path:
    return Path(f"results/store/inputs/{kind}s/mine") / request["inputs"][kind]


def load(request: dict):
    return load_data(request, build.tokenizer(model_folder(request)), seed=0)


def test_what_was_prepared_is_read(request_: dict, model: Path) -> None:
    found = load(request_)
    assert (len(found.train), len(found.selection), len(found.report)) == (32, 8, 16)
    assert [example["labels"] for example in found.report] == [i % 2 for i in range(16)]
    assert len(read_split(request_, "mine", "train")) == 32
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in model.iterdir()} == {*expected, "model.json"}


@pytest.mark.parametrize("split", ["train", "selection", "validation"])
def test_a_split_that_was_cut_is_refused(split: str, request_: dict, data: Path) -> None:
    """Also where its examples are in the cache from before."""
    load(request_)
    file = data / f"{split}.arrow"
    recorded = result.read(data / "dataset.json")["splits"][split]["sha256"]
    file.write_bytes(file.read_bytes()[:-100])
    message = (
        rf"{file}: sha256 is \w+, allowed: {recorded}, which dataset\.json recorded; "
        rf"set aside as {data.name}\.damaged-1; run snakemake again, which makes it anew"
    )
    with pytest.raises(ValueError, match=message):
        load(request_)
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: not in the store; run snakemake"):
        load(request_)
    aside = data.with_name(f"{data.name}.damaged-1")
    assert {f"{split}.arrow", "dataset.json"} <= {path.name for path in aside.iterdir()}


def test_a_split_that_is_gone_is_refused(request_: dict, data: Path) -> None:
    (data / "selection.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"selection\.arrow: not there"):
        load(request_)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_with_another_file_is_refused(name: str, request_: dict, model: Path) -> None:
    file = model / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match=rf"{file}: sha256 is .* set aside as "):
        load(request_)
    model.with_name(f"{model.name}.damaged-1").rename(model)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}: not there"):
        load(request_)


def test_a_file_that_was_added_to_a_model_is_refused(request_: dict, model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"adapter_config\.json: not a file of the prepared model"):
        load(request_)


def test_a_file_of_an_earlier_model_does_not_stay(request_: dict, model: Path) -> None:
    """transformers would read it."""
    (model / "vocab.txt").write_text("old")
    prepared = result.read(model / "model.json")["request"]
    model_files.prepare_model(prepared, model)
    assert not (model / "vocab.txt").exists()
    load(request_)


def test_a_file_that_changed_after_planning_is_not_prepared(
    data: Path, model: Path, tmp_path: Path
) -> None:
    planned = result.read(data / "dataset.json")["request"]
    unknown = copy.deepcopy(planned)
    unknown["dataset"]["splits"]["train"]["sha256"] = None
    with pytest.raises(ValueError, match="it was not there when the workflow was planned"):
        datasets.prepare_dataset(unknown, tmp_path / "again")
    flip_labels(tmp_path / "data/train.tsv")
    with pytest.raises(ValueError, match=r"train\.tsv: sha256 is .*; run snakemake again"):
        datasets.prepare_dataset(planned, tmp_path / "again")
    planned = result.read(model / "model.json")["request"]
    (tmp_path / "model/vocab.txt").write_text("new")
    with pytest.raises(ValueError, match=r"vocab\.txt: sha256 is \w+, allowed: None"):
        model_files.prepare_model(planned, tmp_path / "again")


def test_three_hundred_cells_tokenise_once(
    request_: dict, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, rows = classification.encode, []
    monkeypatch.setattr(
        classification, "encode", lambda given, *rest: rows.extend(given) or encode(given, *rest)
    )
    tokenizer = build.tokenizer(model)
    for seed in range(300):
        request = copy.deepcopy(request_)
        request["cell"]["seed"] = seed
        found = load_data(request, tokenizer, seed)
        assert len(found.train) == 32
    splits = 3  # the first row of each is encoded once more, to learn its columns
    assert len(rows) == 32 + 8 + 16 + splits
