"""A training refuses a model that is not its entry's, or whose weights or tokenizer do not belong."""

import copy
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from torch import nn

from helpers.file_inputs import DATASET, STUDY, WORDS, prepare, write_dataset, write_model
from helpers.prepared import record_model, reset_accelerate
from helpers.repository import ROOT
from helpers.stored import change, store_result
from rankwise.core import result
from rankwise.data import model_files
from rankwise.data.prepared import load_data, read_split
from rankwise.models import build, check
from rankwise.study.plan import Plan, read_plan
from rankwise.training.pretrain import word_tokenizer
from rankwise.training.run import train

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A project with a prepared dataset and model, and the request of a training on them."""
    base = tmp_path_factory.mktemp("base")
    root = base / "project"
    (root / "config").mkdir(parents=True)
    write_dataset(base / "data")
    tiny = read_plan(ROOT, "config/demo.yaml").library["models"]["tiny"]
    entry = write_model(base / "model", tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_DATA", str(base / "data"))
        patch.setenv("MY_MODEL", str(base / "model"))
        patch.chdir(root)
        for kind, own in (("datasets", DATASET), ("models", entry)):
            Path(f"config/{kind}.yaml").write_text(yaml.safe_dump({"mine": own}))
        plan = Plan(STUDY, root)
        prepare(plan, root)
        made_of = plan.input_request("model", "mine")
        store_result(root, made_of, functools.partial(model_files.prepare_model, made_of))
        return root, plan.request("train", plan.cells("train")[0])


class Case:
    """A copy of the project, and its request; a test spoils one of them."""

    def __init__(self, root: Path, request: dict):
        self.request = copy.deepcopy(request)
        self.folder = root / "results/store/inputs/models/mine" / request["inputs"]["model"]

    @property
    def entry(self) -> dict:
        return self.request["model"]

    def refused(self) -> str:
        """The sentence with which the training ends."""
        record_model(self.folder)
        reset_accelerate()
        with pytest.raises(ValueError) as caught:
            train(self.request)
        return str(caught.value)

    def edit_config(self, **values: object) -> None:
        file = self.folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture
def case(project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    root, request = project
    shutil.copytree(root, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return Case(tmp_path / "project", request)


def test_a_right_model_trains(case: Case) -> None:
    reset_accelerate()
    assert train(case.request)["metrics"]["trainable_parameters"] == 64 * 64 + 64 + 2 * 64 + 2


# The entry ----------------------------------------------------------------------------------------


def test_a_role_that_the_model_lacks_is_refused(case: Case) -> None:
    case.entry["modules"]["value"]["name"] = "v_line"
    said = case.refused()
    assert said.startswith(
        "config/models.yaml: a distilbert model: modules.value.name: got 'v_line'"
    )
    assert "in transformers' DistilBertForSequenceClassification: attention.q_lin, " in said


def test_a_wrong_shape_is_refused(case: Case) -> None:
    case.entry["modules"]["up"]["shape"] = [64, 128]
    assert "modules.up.shape: got [64, 128], allowed: [128, 64]" in case.refused()


def test_a_wrong_width_is_refused(case: Case) -> None:
    case.entry["hidden_size"] = 32
    assert case.refused() == (
        "config/models.yaml: a distilbert model: hidden_size: got 32, allowed: 64, as its "
        "architecture says"
    )


def test_a_head_that_the_model_lacks_is_refused(case: Case) -> None:
    case.entry["head"]["classification"] = ["pre_classifier", "score"]
    assert case.refused() == (
        "config/models.yaml: a distilbert model: head.classification: got 'score', allowed: "
        "modules of DistilBertForSequenceClassification: pre_classifier, classifier"
    )


def test_a_random_module_that_the_head_does_not_name_is_refused(case: Case) -> None:
    """It would stay random and frozen."""
    case.entry["head"]["classification"] = ["pre_classifier"]
    said = case.refused()
    assert "the weights lack classifier.bias, classifier.weight, allowed: " in said
    assert "beside the new head (pre_classifier)" in said


def test_a_head_that_is_pretrained_is_refused(case: Case) -> None:
    case.entry["head"]["classification"] = ["pre_classifier", "classifier", "ffn"]
    assert "head: got ffn, allowed: modules that the task adds" in case.refused()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layers": 5}, "mine.architecture.n_layers: got 5, allowed: 2, as config.json"),
        ({"attention_dropout": None}, "mine.architecture.attention_dropout: got 0.1, allowed: 0.0"),
        ({"vocab_size": 97}, "mine.architecture.vocab_size: got 97, allowed: 96"),
    ],
)
def test_another_architecture_than_the_weights_is_refused(
    change: dict, said: str, case: Case
) -> None:
    """None: the entry leaves the key out, and transformers has a default of its own."""
    for key, value in change.items():
        case.entry["architecture"][key] = value
        if value is None:
            del case.entry["architecture"][key]
    assert case.refused().startswith(f"config/models.yaml: {said}")


# The weights --------------------------------------------------------------------------------------


def test_weights_without_a_layer_are_refused(case: Case) -> None:
    case.edit_config(n_layers=3)
    case.entry["architecture"]["n_layers"] = 3
    said = case.refused()
    assert "the weights lack distilbert.transformer.layer.2.attention.k_lin.bias, " in said
    assert said.startswith(f"{case.folder.relative_to(Path.cwd())}: ")


def test_weights_with_more_layers_than_config_json_says_are_refused(case: Case) -> None:
    """transformers would train the first layer alone, without a word."""
    case.edit_config(n_layers=1)
    case.entry["architecture"]["n_layers"] = 1
    said = case.refused()
    assert "the weights have distilbert.transformer.layer.1.attention.k_lin.bias, " in said
    assert "and 12 more, which DistilBertForSequenceClassification of config.json has not" in said


def test_weights_of_another_shape_are_refused(case: Case) -> None:
    case.edit_config(hidden_dim=32)
    case.entry["architecture"]["hidden_dim"] = 32
    case.entry["modules"]["up"]["shape"] = [32, 64]
    case.entry["modules"]["down"]["shape"] = [64, 32]
    said = case.refused()
    assert "layer.0.ffn.lin1.bias: got shape [128], allowed: [32], as config.json" in said


def save_classifier(folder: Path, classes: int) -> nn.Module:
    """Replace the weights by those of a whole classifier."""
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=classes)
    torch.manual_seed(1)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    return model


def test_a_saved_classifier_keeps_its_head_and_its_classes(case: Case) -> None:
    head = ["pre_classifier", "classifier"]
    saved = save_classifier(case.folder, classes=2)
    loaded = build.from_snapshot(case.folder, "classification", 2, head)
    assert torch.equal(loaded.classifier.weight, saved.classifier.weight)
    save_classifier(case.folder, classes=3)
    said = case.refused()
    assert "classifier.bias: got shape [3], allowed: [2], as config.json and the dataset's" in said


def test_a_base_without_a_language_models_head_is_refused(case: Case) -> None:
    config = transformers.AutoConfig.from_pretrained(case.folder)
    transformers.AutoModel.from_config(config).save_pretrained(case.folder)
    with pytest.raises(ValueError, match=r"the weights lack vocab_layer_norm\.bias, "):
        build.from_snapshot(case.folder, "masked_language_modelling", 0)


def test_a_new_head_that_does_not_train_is_refused(case: Case) -> None:
    model = build.from_shapes(case.entry, "classification", 2)
    head = ["pre_classifier", "classifier"]
    model.pre_classifier.requires_grad_(False)
    with pytest.raises(ValueError, match=r"mine\.head: pre_classifier is new and does not train"):
        check.trains_new_head(model, head, "config/models.yaml: mine")
    model.requires_grad_(False)  # as `frozen` does
    check.trains_new_head(model, head, "config/models.yaml: mine")


# The tokenizer ------------------------------------------------------------------------------------


def test_a_model_without_a_tokenizer_is_refused(case: Case) -> None:
    (case.folder / "tokenizer.json").unlink()
    record = case.folder / "model.json"
    files = result.read(record)["files"]
    del files["tokenizer.json"]
    change(record, files=files)
    said = case.refused()
    assert said.startswith(f"{case.folder.relative_to(Path.cwd())}: ")
    assert "allowed: a folder with t" in said
    # Some families' tokenizers are made empty instead.
    (case.folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert "got a tokenizer without a vocabulary, so each text would be unknown" in case.refused()


def test_a_tokenizer_that_cannot_be_loaded_is_refused(case: Case) -> None:
    (case.folder / "tokenizer.json").write_text('{"model": {}}')
    said = case.refused()
    assert said.startswith(f"{case.folder.relative_to(Path.cwd())}: transformers makes no fast ")
    assert "\n" not in said


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(case: Case) -> None:
    word_tokenizer([*WORDS, *(f"more{number}" for number in range(80))]).save_pretrained(
        case.folder
    )
    assert case.refused() == (
        "config/models.yaml: mine: the tokenizer has token ids up to 103, allowed: at most 95, "
        "for the table of embeddings has 96 rows; use the tokenizer of these weights"
    )


def known_words(case: Case, unknown: int) -> Callable[[], object]:
    """Give the model a tokenizer that lacks some words; a function that loads the data with it."""
    word_tokenizer(WORDS[unknown:]).save_pretrained(case.folder)
    record_model(case.folder)
    return lambda: load_data(case.request, build.tokenizer(case.folder), seed=0)


def test_texts_that_the_tokenizer_does_not_know_are_refused(case: Case) -> None:
    load = known_words(case, unknown=4)
    lost = set(WORDS[:4])
    words = [
        word for row in read_split(case.request, "mine", "train") for word in row["text"].split()
    ]
    unknown = sum(word in lost for word in words)
    assert 0.05 * len(words) < unknown < len(words) == 64
    with pytest.raises(ValueError) as caught:
        load()
    assert str(caught.value) == (
        f"config/datasets.yaml: mine: split train: got {unknown} of 64 tokens "
        f"({unknown / 64:.1%}) that the model's tokenizer does not know, allowed: at most 5.0%; use "
        "a model whose tokenizer knows these texts, or set max_unknown_fraction if this share is "
        "meant"
    )
    case.request["dataset"]["max_unknown_fraction"] = 0.5
    assert len(load().train) == 32


def test_a_tokenizer_of_bytes_knows_every_text(case: Case) -> None:
    """GPT-2 calls its end-of-text token unknown, and texts may hold that token."""
    tokenizer = word_tokenizer(WORDS[10:])
    tokenizer.unk_token = tokenizer.eos_token = "[UNK]"
    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    assert len(load_data(case.request, tokenizer, seed=0).train) == 32
