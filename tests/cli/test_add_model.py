"""`rankwise add model`, as typed: what it prints, what it writes, and what it refuses."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import transformers
import yaml

from helpers.hub_cache import fill_hub_cache
from helpers.model_folders import save
from rankwise.cli.main import main
from rankwise.core.safetensors_files import file_tensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OWN = "# mine\nshapes:   # a comment\n  family: bert\n  hidden_size: 8\n  max_positions_tokens: 8\n  architecture: {}\n  modules: {}\n  head: {}\n"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("bert", tmp_path_factory.mktemp("models") / "My-BERT.v2")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def folder(project: Path, bert: Path) -> Path:
    """A model's folder in the project, for changes."""
    return Path(shutil.copytree(bert, project / "model"))


def entries(project: Path) -> dict:
    return yaml.safe_load((project / "config/models.yaml").read_text())


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one sentence of a command that fails; it wrote nothing."""
    file = Path("config/models.yaml")
    before = file.read_text() if file.exists() else None
    assert main(["add", "model", *map(str, arguments)]) == 1
    assert (file.read_text() if file.exists() else None) == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("rankwise: ") and said.err.count("\n") == 1
    return said.err


def printed(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    """The answer for programs; nothing is written."""
    assert main(["add", "model", *map(str, arguments), "--print", "--json"]) == 0
    assert not Path("config/models.yaml").exists()
    return json.loads(capsys.readouterr().out)


def test_the_entry_is_put_behind_the_others_and_shown_with_its_roles(
    project: Path, bert: Path, capsys: pytest.CaptureFixture
) -> None:
    (project / "config").mkdir()
    (project / "config/models.yaml").write_text(OWN)
    assert main(["add", "model", str(bert)]) == 0
    text = (project / "config/models.yaml").read_text()
    assert text.startswith(OWN)
    assert list(entries(project)) == ["shapes", "my_bert_v2"]
    assert entries(project)["my_bert_v2"]["weights"] == {
        "files": str(bert),
        "sha256": hashlib.sha256((bert / "model.safetensors").read_bytes()).hexdigest(),
    }
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["query", "encoder.layer.*.attention.self.query", "32", "x", "32", "2"] in rows
    assert ["down", "encoder.layer.*.output.dense", "32", "x", "48", "2"] in rows
    assert ["-", "pooler.dense", "32", "x", "32", "1"] in rows
    # (99 words + 320 positions + 2 kinds of text) x 32 and their norm; 2 layers of 4 x 32^2 and
    # 2 x 32 x 48 weights, 5 x 32 + 48 biases and 2 norms; the pooler.
    numbers = 421 * 32 + 64 + 2 * (4 * 32**2 + 2 * 32 * 48 + 5 * 32 + 48 + 4 * 32) + 32 * 33
    assert f"my_bert_v2: {numbers:,} parameters without a head".split() in rows
    assert rows[-1][-6:] == ["next:", "rankwise", "add", "study", "--model", "my_bert_v2"]


def test_print_writes_nothing_and_what_it_prints_is_yaml(
    project: Path, bert: Path, capsys: pytest.CaptureFixture
) -> None:
    answer = printed(capsys, bert, "--name", "b2")
    assert main(["add", "model", str(bert), "--name", "b2", "--print"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"b2": answer["entry"]}
    assert not (project / "config").exists()
    assert answer["roles"]["up"] == {
        "module": "encoder.layer.*.intermediate.dense",
        "shape": [48, 32],
        "count": 2,
    }


@pytest.mark.parametrize("name", ["shapes", "tiny"])  # one of the project, one of Rankwise
def test_an_entry_is_never_written_over(
    name: str, project: Path, bert: Path, capsys: pytest.CaptureFixture
) -> None:
    (project / "config").mkdir()
    (project / "config/models.yaml").write_text(OWN)
    said = refused(capsys, bert, "--name", name)
    assert f"config/models.yaml: {name}: got 'an entry that is there already'" in said


@pytest.mark.parametrize(("name", "reason"), [
    ("null", "no word that YAML reads as a number or null"),
    ("a name", "letters, digits, _ . and -"),
])  # fmt: skip
def test_a_name_that_yaml_reads_as_something_else_is_refused(
    name: str, reason: str, project: Path, bert: Path, capsys: pytest.CaptureFixture
) -> None:
    said = refused(capsys, bert, "--name", name)
    assert f"--name: got {name!r}, allowed: " in said and reason in said


def test_a_path_stays_as_typed_or_is_relative_to_the_project(
    folder: Path,
    bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MY_MODELS", str(bert.parent))
    for given, kept in (
        ("${MY_MODELS}/My-BERT.v2", "${MY_MODELS}/My-BERT.v2"),
        (folder, "model"),
        ("./model", "model"),
        (bert, str(bert)),
        (os.path.relpath(bert), os.path.relpath(bert)),
    ):
        assert printed(capsys, given)["entry"]["weights"]["files"] == kept


@pytest.mark.parametrize(("files", "licence"), [
    ({"README.md": "---\nlicense: apache-2.0\n---\n# A model\n", "LICENSE": "MIT License\n"}, "apache-2.0"),
    ({"README.md": "---\nlicense: other\nlicense_name: gemma\n---\n"}, "gemma"),
    ({"README.md": "Licensed as MIT, says its text.\n"}, "unknown, ask its author"),
    ({"README.md": "---\nlicense: other\n---\n", "LICENSE": "\nMIT License\n\nCopyright\n"}, "MIT License"),
    ({"LICENSE.txt": "   Apache License\n   Version 2.0, January 2004\n"}, "Apache License, Version 2.0, January 2004"),
])  # fmt: skip
def test_the_licence_is_that_of_the_models_files(
    files: dict, licence: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    assert printed(capsys, folder)["entry"]["licence"] == licence


def test_shards_give_the_same_entry_with_one_digest_of_all(
    project: Path, bert: Path, capsys: pytest.CaptureFixture
) -> None:
    shards = project / "shards"
    model = transformers.AutoModel.from_pretrained(bert)
    model.save_pretrained(shards, max_shard_size="40KB")
    names = sorted(path.name for path in shards.glob("model*.safetensors*"))
    assert len(names) > 3  # with the index
    lines = [f"{n} {hashlib.sha256((shards / n).read_bytes()).hexdigest()}\n" for n in names]
    whole, sharded = printed(capsys, bert)["entry"], printed(capsys, shards)["entry"]
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    assert sharded["weights"] == {"files": "shards", "sha256": digest}
    assert {**sharded, "weights": 0} == {**whole, "weights": 0}


def test_weights_without_the_layers_that_a_classifier_adds_make_them_part_of_its_head(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    save("bert", project / "filler", saved="AutoModelForMaskedLM")  # has no pooler
    assert printed(capsys, "filler")["entry"]["head"] == {
        "classification": ["pooler", "classifier"],
        "masked_language_modelling": ["cls"],
        "token_classification": ["classifier"],  # reads every token, so it has no pooler
    }


def test_a_language_model_without_its_head_has_no_such_task(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    save("llama", project / "body", saved="AutoModel")
    answer = printed(capsys, "body")
    head = {"classification": ["score"], "token_classification": ["score"]}
    assert answer["entry"]["head"] == head
    assert "no language_modelling: the weights lack lm_head.weight" in answer["notes"]


def test_a_role_of_ones_own_names_matrices_that_the_structure_does_not_tell(
    project: Path, bert: Path, capsys: pytest.CaptureFixture
) -> None:
    roles = ("--role", "pool=pooler.dense", "--role", "inner=intermediate.dense")
    answer = printed(capsys, bert, *roles)
    modules = answer["entry"]["modules"]
    assert list(modules) == ["query", "key", "value", "output", "down", "pool", "inner"]
    assert modules["pool"] == {"name": "pooler.dense", "shape": [32, 32]}
    assert modules["inner"] == {"name": "intermediate.dense", "shape": [48, 32]}
    assert answer["others"] == []


# What is refused ----------------------------------------------------------------------------------


def config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(("changes", "reason"), [
    ({"model_type": "brt"}, "config.json: model_type: got 'brt', allowed: a family of the installed transformers; code that a folder brings is not run (nearest: 'bert')"),
    ({"model_type": None}, "config.json: model_type: got None, allowed: a family of transformers"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config: got weights that are quantized already, allowed: dense weights"),
    ({"hidden_size": 64}, "got shape [32], allowed: [64], as config.json says"),
    ({"intermediate_size": 96}, "got shape [48], allowed: [96], as config.json says"),
    ({"num_hidden_layers": 1}, "got encoder.layer.1.attention.output.LayerNorm.bias"),
    ({"num_hidden_layers": 5}, "got no encoder.layer.2.attention.output.LayerNorm.bias"),
    ({"num_attention_heads": 5}, "config.json: transformers cannot build this bert: The hidden size (32) is not a multiple of the number of attention heads (5)"),
])  # fmt: skip
def test_a_configuration_that_is_not_that_of_the_weights_is_one_sentence(
    changes: dict, reason: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    config(folder, **changes)
    assert reason in refused(capsys, folder)


def test_other_broken_files_are_one_sentence(
    folder: Path, bert: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (bert / "config.json").read_bytes())
    assert "config.json: is not JSON in UTF-8 without a mark" in refused(capsys, folder)
    (folder / "config.json").write_text(transformers.WhisperConfig().to_json_string())
    assert "there are no batches of input_features here" in refused(capsys, folder)
    (folder / "config.json").write_text(transformers.CLIPConfig().to_json_string())
    assert "a model of several parts (" in refused(capsys, folder)
    (folder / "config.json").unlink()
    assert "config.json: got nothing, allowed: a model's configuration" in refused(capsys, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "got weights as pickle only (pytorch_model.bin)" in refused(capsys, folder)
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-1.safetensors is not there" in refused(capsys, folder)


@pytest.mark.parametrize(("arguments", "reason"), [
    (["./nowhere"], "./nowhere: got no such folder, allowed: a folder with config.json"),
    (["model/nowhere"], "model/nowhere: got no such folder"),
    (["${NOT_SET}/model"], "${NOT_SET}/model: set the environment variable first"),
    (["model", "--revision", "main"], "--revision: got main, allowed: nothing, model is a folder"),
    (["model", "--role", "query"], "--role: got 'query', allowed: ROLE=NAME"),
    (["model", "--role", "a=pooler.dense", "--role", "a=query"], "--role: got a twice, allowed: each role once"),
    (["model", "--role", "a=wq"], "--role a=wq: fits no matrix, allowed: encoder.layer.*.attention.self.query 32 x 32 (2); "),
    (["model", "--role", "a=dense"], "--role a=dense: got shapes 32 x 32 and 32 x 48 and 48 x 32, allowed: matrices of one shape"),
])  # fmt: skip
def test_arguments_that_do_not_fit_are_one_sentence(
    arguments: list[str], reason: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert reason in refused(capsys, *arguments)


def test_where_the_structure_tells_no_role_the_matrices_are_listed(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }
    transformers.FNetForMaskedLM(
        transformers.FNetConfig(**arguments, intermediate_size=48, hidden_act="linear")
    ).save_pretrained("fourier")
    said = refused(capsys, "fourier")
    assert "the structure tells the role of no matrix; name them yourself" in said
    assert "--role query=NAME" in said
    assert "encoder.layer.*.intermediate.dense 48 x 32 (2)" in said
    answer = printed(capsys, "fourier", "--role", "up=intermediate.dense")
    assert list(answer["entry"]["modules"]) == ["up"]


# The hub ------------------------------------------------------------------------------------------


def cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], branch: str = "main"
) -> None:
    """A cache with one revision of owner/Some-Model, and what a branch was when it was asked for."""
    fill_hub_cache(tmp_path, monkeypatch, "models/owner/Some-Model", COMMIT, files)
    refs = tmp_path / "hub/models--owner--Some-Model/refs"
    refs.mkdir()
    (refs / branch).write_text(COMMIT)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("revision", [[], ["--revision", COMMIT], ["--revision", "v2"]])
def test_a_repository_on_the_hub_is_pinned_to_the_commit(
    revision: list[str],
    project: Path,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    files = {**contents(bert), "README.md": b"---\nlicense: mit\n---\n"}
    cached(tmp_path, monkeypatch, files, "v2" if "v2" in revision else "main")
    answer = printed(capsys, "owner/Some-Model", *revision)
    assert answer["name"] == "some_model"
    assert answer["entry"]["weights"] == {"hub": "owner/Some-Model", "revision": COMMIT}
    assert answer["entry"]["licence"] == "mit"
    same = {key: value for key, value in printed(capsys, bert)["entry"].items() if key != "weights"}
    assert {**answer["entry"], "licence": same["licence"]}.items() >= same.items()


def test_weights_on_the_hub_are_not_downloaded(
    project: Path,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    files = contents(bert)
    files.pop("model.safetensors")
    cached(tmp_path, monkeypatch, files)
    said = refused(capsys, "owner/Some-Model")
    assert "owner/Some-Model: the headers of its weights cannot be read" in said
    assert f"hf download owner/Some-Model --revision {COMMIT}" in said

    asked = []

    def headers(repository: str, revision: str) -> huggingface_hub.utils.SafetensorsRepoMetadata:
        """What the hub answers for the headers of this model's weights."""
        asked.append((repository, revision))
        tensors = {
            name: huggingface_hub.utils.TensorInfo(x.dtype, list(x.shape), (0, 0))
            for name, x in file_tensors(bert / "model.safetensors").items()
        }
        file = huggingface_hub.utils.SafetensorsFileMetadata({}, tensors)
        weights = "model.safetensors"
        return huggingface_hub.utils.SafetensorsRepoMetadata(
            None, False, dict.fromkeys(tensors, weights), {weights: file}
        )

    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", headers)
    entry = printed(capsys, "owner/Some-Model")["entry"]
    assert asked == [("owner/Some-Model", COMMIT)]
    assert entry["modules"] == printed(capsys, bert)["entry"]["modules"]


def test_a_repository_that_is_not_there_is_one_sentence(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    cached(tmp_path, monkeypatch, {"README.md": b""})
    said = refused(capsys, "owner/other")
    assert said.startswith("rankwise: owner/other: is no folder here, and on the hub ")
    assert "allowed: a folder with config.json, or a repository on the hub (owner/name)" in said
