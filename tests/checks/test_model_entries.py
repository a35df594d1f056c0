"""An entry that does not describe its model is refused before any job, in one sentence each."""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
import yaml

from helpers.file_inputs import DATASET, STUDY, write_dataset, write_model
from helpers.repository import ROOT
from rankwise.checks import doctor, model_entries, model_snapshot, preflight
from rankwise.core import config
from rankwise.core.config import ConfigError
from rankwise.study.jobs import result_jobs
from rankwise.study.plan import Plan, read_plan

FILE = "config/models.yaml: mine"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A small DistilBERT with a masked language model's head, and its right entry."""
    folder = tmp_path_factory.mktemp("made") / "model"
    tiny = read_plan(ROOT, "config/demo.yaml").library["models"]["tiny"]
    return folder, write_model(folder, tiny)


class Case:
    """A project, the folder of a model, and its entry; a test spoils one of them."""

    def __init__(self, root: Path, folder: Path, entry: dict):
        self.root, self.folder, self.entry = root, folder, entry

    def plan(self) -> Plan:
        models = {"mine": self.entry}
        for kind, own in (("datasets", {"mine": DATASET}), ("models", models)):
            (self.root / f"config/{kind}.yaml").write_text(yaml.safe_dump(own))
        return Plan(STUDY, self.root, "config/local.yaml")

    def problems(self, kind: str = "models") -> list[str]:
        plan = self.plan()
        return preflight.lacking(kind, result_jobs(plan), plan)

    def edit(self, name: str, change: Callable[[dict], None]) -> None:
        """Change a JSON file of the folder."""
        content = json.loads((self.folder / name).read_text())
        change(content)
        (self.folder / name).write_text(json.dumps(content))


@pytest.fixture
def case(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    folder, entry = made
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "project/config").mkdir(parents=True)
    write_dataset(tmp_path / "data")
    monkeypatch.setenv("MY_MODEL", str(tmp_path / "model"))
    monkeypatch.setenv("MY_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "project")
    return Case(tmp_path / "project", tmp_path / "model", copy.deepcopy(entry))


def test_a_right_entry_has_no_problem(case: Case) -> None:
    assert case.problems() == case.problems("files") == []


# Entry: what is changed in it -> the sentence, with {} for the folder.
NAMES = "attention.k_lin, attention.out_lin, attention.q_lin, attention.v_lin, ffn.lin1, ffn.lin2"
LAYER = "distilbert.transformer.layer"
WRONG = {
    "modules.value.name": ("v_line", f"'v_line', allowed: the end of a module's name in {{}}: "
                           f"{NAMES} (nearest: 'v_lin')"),
    "modules.up.shape": ([64, 128], f"[64, 128], allowed: [128, 64], the shape of {LAYER}.0.ffn."
                         "lin1.weight in {}"),
    "max_positions_tokens": (65, "65, allowed: at most 64, for distilbert.embeddings."
                             "position_embeddings.weight in {}"),
    "architecture.n_layers": (5, "5, allowed: 2, as {}/config.json says"),
    "architecture.activation": ("relu", "'relu', allowed: 'gelu', as {}/config.json says"),
    "head.classification": (["classifier", "ffn"], "'ffn', allowed: modules that the task adds, "
                            f"and {{}} has {LAYER}.0.ffn.lin1.bias, which is part of the "
                            "pretrained model"),
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_of_an_entry_is_named_with_the_right_one(key: str, case: Case) -> None:
    value, sentence = WRONG[key]
    node = case.entry
    *path, last = key.split(".")
    for name in path:
        node = node[name]
    node[last] = value
    assert case.problems() == [f"{FILE}.{key}: got {sentence.format(case.folder)}"]


@pytest.mark.parametrize(("key", "value", "sentence"), [
    ("family", "bert", ".architecture of family bert: got 'activation', allowed: "),
    ("hidden_size", 32, ".hidden_size: got 32, allowed: 64, as mine.architecture.dim says"),
])  # fmt: skip
def test_what_contradicts_its_own_architecture_is_refused_without_the_folder(
    key: str, value: object, sentence: str, case: Case
) -> None:
    case.entry[key] = value
    with pytest.raises(ConfigError) as caught:
        case.plan()
    assert str(caught.value).startswith(f"{FILE}{sentence}")


def test_a_family_that_the_folder_contradicts_is_named(case: Case) -> None:
    """As one without keys of its own in the entry, which the family's class could refuse."""
    case.entry |= {"family": "bert", "architecture": {}}
    said = f"{FILE}.family: got 'bert', allowed: distilbert, as model_type of "
    assert f"{said}{case.folder}/config.json says" in case.problems()


def test_a_family_that_transformers_lacks_is_named(case: Case) -> None:
    case.entry["family"] = "distil-bert"
    (said,) = case.problems()
    assert said.startswith(f"{FILE}.family: got 'distil-bert', allowed: a model_type that the ")
    assert "(nearest: distilbert" in said


def test_two_roles_with_one_module_are_refused(case: Case) -> None:
    """Methods would find the last role only: LoRA on query, key and value would train two."""
    case.entry["modules"]["value"]["name"] = "q_lin"
    with pytest.raises(ConfigError) as caught:
        case.plan()
    assert str(caught.value) == (
        f"{FILE}.modules.value.name: got 'q_lin', allowed: a module that has no role yet; this one "
        "is query"
    )


def test_a_number_of_layers_that_config_json_has_too_is_held_to_the_weights(case: Case) -> None:
    case.entry["architecture"]["n_layers"] = 5
    case.edit("config.json", lambda config: config.update(n_layers=5))
    assert case.problems() == [
        f"{FILE}.architecture.n_layers: got 5, allowed: 2, the layers of the weights in "
        f"{case.folder}"
    ]


def test_a_name_that_a_head_has_too_is_refused(case: Case) -> None:
    """It would be adapted where no layer is."""
    case.entry["modules"]["up"]["name"] = "vocab_transform"
    (said,) = case.problems()
    assert "allowed: a name of modules in layers only, and " in said
    assert said.endswith(" has vocab_transform, too; write more of the name")


# The folder ---------------------------------------------------------------------------------------


def test_a_folder_without_a_tokenizer_is_refused(case: Case) -> None:
    (case.folder / "tokenizer.json").unlink()  # tokenizer_config.json is no vocabulary
    (said,) = case.problems()
    assert said.startswith(f"{FILE}.weights.files: {case.folder} has no tokenizer, allowed: a ")


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(case: Case) -> None:
    """It is another model's. Fewer tokens than embeddings are padding."""
    case.edit("tokenizer.json", lambda content: content["model"]["vocab"].update(new=95))
    assert case.problems() == []
    case.edit("tokenizer.json", lambda content: content["model"]["vocab"].update(new=96))
    (said,) = case.problems()
    assert said == (
        f"{FILE}: {case.folder}/tokenizer.json: got token ids up to 96, allowed: at most 95, for "
        "distilbert.embeddings.word_embeddings.weight has 96 rows; use the tokenizer of these "
        "weights"
    )


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_byte_order_mark_is_named(name: str, case: Case) -> None:
    file = case.folder / name
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert case.problems() == [
        f"{file}: got a byte order mark (BOM) before the text, allowed: JSON in UTF-8 without one; "
        "save it as UTF-8 without BOM"
    ]


def test_broken_json_is_named(case: Case) -> None:
    (case.folder / "config.json").write_text("{")
    (said,) = case.problems()
    assert said.startswith(f"{case.folder}/config.json: is not JSON in UTF-8 (")


def test_a_folder_without_config_json_is_named(case: Case) -> None:
    (case.folder / "config.json").unlink()
    assert case.problems() == [
        f"{FILE}.weights.files: {case.folder} has no config.json; copy it, too"
    ]


def test_weights_as_pickle_only_are_named_with_a_remedy(case: Case) -> None:
    (case.folder / "model.safetensors").rename(case.folder / "pytorch_model.bin")
    (said,) = case.problems("files")
    assert said.startswith(f"{FILE}.weights.files: {case.folder}: got weights as pickle only (")
    assert "transformers.DistilBertForMaskedLM.from_pretrained(FOLDER).save_pretrained" in said
    assert case.problems() == []  # what config.json says is right


def test_weights_that_are_no_safetensors_are_named(case: Case) -> None:
    """As git leaves a large file that was not fetched."""
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    (case.folder / "model.safetensors").write_bytes(pointer)
    case.entry["weights"]["sha256"] = hashlib.sha256(pointer).hexdigest()
    (said,) = case.problems("files")
    assert said.startswith(f"{FILE}.weights.files: {case.folder}/model.safetensors: 43 bytes ")


def test_a_missing_shard_is_named(case: Case) -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(case.folder)
    (case.folder / "model.safetensors").unlink()
    model.save_pretrained(case.folder, max_shard_size="100KB")
    shard = sorted(case.folder.glob("model-*.safetensors"))[-1]
    assert f"{FILE}.weights.sha256: sha256 of " in case.problems("files")[0]
    assert case.problems() == []  # shards are compared as a whole file is
    shard.unlink()
    (said,) = case.problems("files")
    assert said.startswith(f"{FILE}.weights.files: {case.folder}/model.safetensors.index.json: ")
    assert f"{shard.name} is not there" in said


def test_the_doctor_names_the_entry_and_what_to_do(case: Case) -> None:
    case.entry["max_positions_tokens"] = 65
    case.plan()
    (case.root / "config/local.yaml").write_text(yaml.safe_dump(STUDY))
    missing = doctor.examine(case.root, "config/local.yaml")["missing"]
    said = {one["what"]: one["do"] for one in missing}
    (sentence,) = (
        text for text in said if text.startswith(f"{FILE}.max_positions_tokens: got 65,")
    )
    assert sentence.endswith(f"position_embeddings.weight in {case.folder}")
    assert said[sentence] == "correct the entry, or the model's folder"


# Other families -----------------------------------------------------------------------------------


def check_folder(case: Case, model: transformers.PreTrainedModel, entry: dict) -> list[str]:
    """What is said of another model, whose tokenizer is that of the case."""
    (case.folder / "model.safetensors").unlink()
    model.save_pretrained(case.folder)
    case.entry = {**entry, "weights": case.entry["weights"]}
    return case.problems()


def roles(**names_and_shapes: tuple) -> dict:
    return {
        role: {"name": name, "shape": shape} for role, (name, *shape) in names_and_shapes.items()
    }


def test_matrices_of_gpt2_are_compared_as_they_are_stored(case: Case) -> None:
    sizes = {"vocab_size": 96, "n_positions": 32, "n_embd": 16, "n_layer": 3, "n_head": 2}
    entry = {
        "family": "gpt2", "hidden_size": 16, "max_positions_tokens": 32, "architecture": sizes,
        "modules": roles(attention=("c_attn", 16, 48), output=("attn.c_proj", 16, 16)),
        "head": {"classification": ["score"], "language_modelling": ["lm_head"]},
    }  # fmt: skip
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    assert check_folder(case, model, entry) == []
    case.entry["modules"]["attention"]["shape"] = [48, 16]
    (said,) = case.problems()
    assert "modules.attention.shape: got [48, 16], allowed: [16, 48]" in said


def test_a_head_that_is_not_in_the_weights_is_named(case: Case) -> None:
    """Tied to no embeddings, it would be random and frozen."""
    sizes = {
        "vocab_size": 96, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "tie_word_embeddings": False, "max_position_embeddings": 64,
    }  # fmt: skip
    entry = {
        "family": "llama", "hidden_size": 16, "max_positions_tokens": 64, "architecture": sizes,
        "modules": roles(query=("q_proj", 16, 16)),
        "head": {"classification": ["score"], "language_modelling": ["lm_heads"]},
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    assert check_folder(case, model, entry) == []  # the study's task is another one
    tasks = ["language_modelling"]
    (said,) = model_entries.problems("mine", case.entry, tasks)
    assert said.startswith(f"{FILE}.head.language_modelling: got 'lm_heads', allowed: modules of ")
    assert "which have beside their layers: lm_head, model; use a snapshot with this head" in said
    case.entry["head"]["language_modelling"] = ["lm_head"]
    assert model_entries.problems("mine", case.entry, tasks) == []


def test_a_base_without_a_masked_language_models_head_is_named(case: Case) -> None:
    tasks = ["masked_language_modelling"]
    assert model_entries.problems("mine", case.entry, tasks) == []
    model = transformers.AutoModel.from_pretrained(case.folder)
    model.save_pretrained(case.folder)
    (said,) = model_entries.problems("mine", case.entry, tasks)
    assert said.startswith(f"{FILE}.head.masked_language_modelling: got 'vocab_transform, vocab_l")
    assert "which have beside their layers: embeddings; use a snapshot with this head" in said


def test_positions_that_a_family_does_not_use_do_not_count(case: Case) -> None:
    """RoBERTa's table has two rows more than positions; the last text would end in an error."""
    sizes = {
        "vocab_size": 96, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 66, "type_vocab_size": 1,
    }  # fmt: skip
    entry = {
        "family": "roberta", "hidden_size": 16, "max_positions_tokens": 64, "architecture": sizes,
        "modules": roles(query=("query", 16, 16), output=("attention.output.dense", 16, 16),
                         down=("output.dense", 16, 24)),
        "head": {"classification": ["classifier"]},
    }  # fmt: skip
    model = transformers.RobertaModel(transformers.RobertaConfig(**sizes))
    assert check_folder(case, model, entry) == []
    case.entry["max_positions_tokens"] = 65
    (said,) = case.problems()
    assert "max_positions_tokens: got 65, allowed: at most 64" in said


def test_a_model_from_the_hub_is_compared_where_it_is_in_the_cache(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision, cache = "a" * 40, case.root.parent / "cache"
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    case.entry["weights"] = {"hub": "owner/name", "revision": revision}
    case.entry["architecture"]["activation"] = "relu"
    assert case.problems() == []  # it is not downloaded to be compared
    snapshot = cache / "hub/models--owner--name/snapshots" / revision
    shutil.copytree(case.folder, snapshot)
    (snapshot / "tokenizer.json").unlink()  # may be downloaded later
    assert case.problems() == [
        f"{FILE}.architecture.activation: got 'relu', allowed: 'gelu', as {snapshot}/config.json says"
    ]


@pytest.mark.parametrize("name", ["stories260k", "minilm"])
def test_a_shipped_entry_is_right_where_its_files_are(name: str) -> None:
    entry = config.library(ROOT)["models"][name]
    if model_snapshot.folder_here(entry) is None:
        pytest.skip(f"{entry['weights']['files']} is not here")
    assert model_entries.problems(name, entry, tasks=entry["head"]) == []
