"""Which files of a pretrained model are taken, and that they are whole."""

import ast
import hashlib
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, tokenization_utils_base
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from helpers.hub_cache import fill_hub_cache
from rankwise.core import provenance, safetensors_files, snapshot_files
from rankwise.data import model_files
from rankwise.training.pretrain import word_tokenizer

REPO, REVISION = "distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be"
INDEX = "model.safetensors.index.json"
PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SHARDS = [*PARTS, INDEX]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A folder with whole weights and a tokenizer."""
    folder = tmp_path / "whole"
    folder.mkdir()
    save_file({"x": torch.arange(3.0)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder as transformers saves a model in two shards, with its tokenizer."""
    folder = tmp_path / "sharded"
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=1, vocab_size=300, n_positions=200, bos_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.GPT2Model(config)
    model.save_pretrained(folder, max_shard_size="10KB")
    word_tokenizer(["a", "b"]).save_pretrained(folder)
    assert {file.name for file in folder.glob("*safetensors*")} == set(SHARDS)
    return folder


def planned(folder: Path) -> dict:
    """The request of an entry with the folder's files, as planning would write it."""
    names = snapshot_files.copied_files(folder)
    contents = {name: provenance.file_sha256(folder / name) for name in names}
    sha256 = safetensors_files.weights_sha256(folder, folder)
    return {"model": {"weights": {"files": str(folder), "sha256": sha256, "contents": contents}}}


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_model_from_the_hub_brings_no_code_and_no_pickle(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both could run code of strangers."""
    files = {file.name: file.read_bytes() for file in whole.iterdir()}
    files |= {"pytorch_model.bin": b"p", "modeling.py": b"c"}
    fill_hub_cache(tmp_path, monkeypatch, f"models/{REPO}", REVISION, files)
    request = {"model": {"weights": {"hub": REPO, "revision": REVISION}}}
    result = model_files.prepare_model(request, tmp_path / "out")
    expected = {"config.json", "model.safetensors", "tokenizer.json"}
    assert set(result["files"]) == expected
    assert names(tmp_path / "out") == expected


def test_shards_are_copied_with_their_index(sharded: Path, tmp_path: Path) -> None:
    result = model_files.prepare_model(planned(sharded), tmp_path / "out")
    expected = {*SHARDS, "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert set(result["files"]) == names(tmp_path / "out") == expected
    assert result["files"][INDEX] == hashlib.sha256((sharded / INDEX).read_bytes()).hexdigest()
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "out")
    given = {}
    for part in PARTS:
        given |= load_file(sharded / part)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, given[name])


def test_shards_come_from_the_hub(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in sharded.iterdir()}
    files["other.safetensors"] = b"an adapter, say"
    fill_hub_cache(tmp_path, monkeypatch, f"models/{REPO}", REVISION, files)
    request = {"model": {"weights": {"hub": REPO, "revision": REVISION}}}
    result = model_files.prepare_model(request, tmp_path / "out")
    assert set(SHARDS) <= set(result["files"])
    assert "other.safetensors" not in names(tmp_path / "out")


@pytest.mark.parametrize("lost", [PARTS[1], INDEX])
def test_a_repository_without_all_shards_is_named(
    lost: str, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sharded / lost).unlink()
    files = {file.name: file.read_bytes() for file in sharded.iterdir()}
    fill_hub_cache(tmp_path, monkeypatch, f"models/{REPO}", REVISION, files)
    request = {"model": {"weights": {"hub": REPO, "revision": REVISION}}}
    with pytest.raises(ValueError, match=rf"^{REPO} at {REVISION}: .*{lost}"):
        model_files.prepare_model(request, tmp_path / "out")


def test_a_file_that_was_cut_short_is_refused(whole: Path, tmp_path: Path) -> None:
    file = whole / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"its tensors have 12 bytes, and the file has 11"):
        model_files.prepare_model(planned(whole), tmp_path / "out")


@pytest.mark.parametrize("changed", [*PARTS, "tokenizer.json"])
def test_another_file_than_planned_is_refused(changed: str, sharded: Path, tmp_path: Path) -> None:
    request = planned(sharded)
    file = sharded / changed
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r": sha256 is \w+, allowed: \w+"):
        model_files.prepare_model(request, tmp_path / "out")


def test_a_model_without_a_tokenizer_is_refused(whole: Path, tmp_path: Path) -> None:
    (whole / "tokenizer.json").unlink()
    (whole / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"^{whole} has no tokenizer, allowed: a folder with its"):
        model_files.prepare_model(planned(whole), tmp_path / "out")


def test_other_weights_than_the_entry_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    weights = {"files": str(tmp_path), "sha256": "0" * 64}
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .*, allowed: 0000"):
        model_files.checked_folder(weights)


def test_no_tokenizer_and_no_shard_of_the_folder_before_stays(whole: Path, tmp_path: Path) -> None:
    """transformers would read them."""
    out = tmp_path / "out"
    out.mkdir()
    for old in ("spm.model", "added_tokens.json", "chat_template.jinja", "vocab.txt", *SHARDS):
        (out / old).write_text("old")
    model_files.prepare_model(planned(whole), out)
    assert names(out) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_every_tokenizer_file_is_copied(whole: Path, tmp_path: Path) -> None:
    brought = {"tokenizer.model", "spm.model", "special_tokens_map.json", "added_tokens.json"}
    brought |= {"merges.txt", "vocab.json", "vocab.txt", "sentencepiece.bpe.model"}
    brought |= {"chat_template.jinja", "generation_config.json", "tokenizer_config.json"}
    for name in brought:
        (whole / name).write_text("x")
    model_files.prepare_model(planned(whole), tmp_path / "out")
    assert names(tmp_path / "out") == {*brought, *names(whole)}


# Tokenizers of sounds: their texts are phonemes or notes, and no task here reads them.
SOUNDS = {"speecht5", "speech_to_text", "pop2piano"}


def vocabulary_files() -> set[str]:
    """The file names of every tokenizer's vocabulary, read from transformers' sources.

    Not imported: some tokenizers need packages that are not installed.
    """
    found = set()
    folder = Path(transformers.__file__).parent / "models"
    for file in folder.glob("*/tokenization_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            is_names = isinstance(node, ast.Assign) and any(
                getattr(target, "id", "") == "VOCAB_FILES_NAMES" for target in node.targets
            )
            if is_names and isinstance(node.value, ast.Dict) and file.parent.name not in SOUNDS:
                found |= {value.value for value in node.value.values}
    return found


def test_the_list_has_every_vocabulary_file_of_transformers() -> None:
    found = vocabulary_files()
    assert {"spm.model", "vocab.txt", "sentencepiece.bpe.model", "tokenizer.json"} <= found
    assert len(TOKENIZER_MAPPING_NAMES) > 100  # the sources were those of all tokenizers
    assert found - set(snapshot_files.COPIED) == set()
    read = {
        value
        for name, value in vars(tokenization_utils_base).items()
        if name.endswith("_FILE") and isinstance(value, str)
    }
    assert "special_tokens_map.json" in read
    assert read - set(snapshot_files.COPIED) == set()


def test_a_copied_tokenizer_is_the_one_of_its_folder(sharded: Path, tmp_path: Path) -> None:
    model_files.prepare_model(planned(sharded), tmp_path / "out")
    ours = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert ours("b a")["input_ids"] == AutoTokenizer.from_pretrained(sharded)("b a")["input_ids"]
