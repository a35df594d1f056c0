"""Which files hold a model's weights, and what they hold; the safetensors library writes them."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from rankwise.core import safetensors_files
from rankwise.core.safetensors_files import Tensor

INDEX = "model.safetensors.index.json"
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def index(folder, shard_by_tensor):
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_by_tensor}))


@pytest.fixture
def sharded(tmp_path):
    """A folder with a 2 x 3 matrix in one shard and a scalar in another."""
    save_file({"a.weight": torch.zeros(2, 3)}, tmp_path / PARTS[0])
    save_file({"b": torch.tensor(1.0, dtype=torch.bfloat16)}, tmp_path / PARTS[1])
    index(tmp_path, {"a.weight": PARTS[0], "b": PARTS[1]})
    return tmp_path


def test_a_whole_file_tells_its_tensors_and_its_sha256(tmp_path):
    file = tmp_path / "model.safetensors"
    tensors = {"x": torch.zeros(4, dtype=torch.int64), "y.weight": torch.ones(5, 1)}
    save_file(tensors, file, metadata={"format": "pt"})
    assert safetensors_files.tensors(tmp_path) == {
        "x": Tensor("I64", (4,)),
        "y.weight": Tensor("F32", (5, 1)),
    }
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert safetensors_files.weights_sha256(tmp_path, tmp_path) == expected


def test_shards_tell_all_tensors_and_one_sha256(sharded):
    assert safetensors_files.weight_files(sharded) == (INDEX, *PARTS)
    assert safetensors_files.tensors(sharded) == {
        "a.weight": Tensor("F32", (2, 3)),
        "b": Tensor("BF16", ()),
    }
    lines = [
        f"{name} {hashlib.sha256((sharded / name).read_bytes()).hexdigest()}\n"
        for name in (*PARTS, INDEX)  # in the order of their bytes: "-" sorts before "."
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert safetensors_files.weights_sha256(sharded, sharded) == expected


def test_a_whole_file_counts_before_an_index(sharded):
    save_file({"whole": torch.zeros(1)}, sharded / "model.safetensors")
    assert set(safetensors_files.tensors(sharded)) == {"whole"}


def test_a_missing_shard_is_named(sharded):
    (sharded / PARTS[1]).unlink()
    with pytest.raises(ValueError, match=rf"index\.json: weight_map: .*{PARTS[1]} is not there"):
        safetensors_files.tensors(sharded)


def test_a_tensor_that_its_shard_lacks_is_named(sharded):
    index(sharded, {"a.weight": PARTS[0], "b": PARTS[0]})
    with pytest.raises(ValueError, match=rf"weight_map: b: got {PARTS[0]}, which has no such"):
        safetensors_files.tensors(sharded)


@pytest.mark.parametrize(
    ("shard", "got"),
    [("../x.safetensors", r"'\.\./x\.safetensors'"), ("x.bin", r"'x\.bin'"), (3, "3")],
)
def test_an_index_names_safetensors_of_its_own_folder(tmp_path, shard, got):
    index(tmp_path, {"a": shard})
    with pytest.raises(ValueError, match=f"weight_map: a: got {got}, allowed: "):
        safetensors_files.weight_files(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}'])
def test_a_broken_index_is_named(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ValueError, match=r"index\.json: .*allowed: a JSON object that maps"):
        safetensors_files.weight_files(tmp_path)


def test_shards_without_an_index_ask_for_it(sharded):
    (sharded / INDEX).unlink()
    with pytest.raises(ValueError, match=rf"got {PARTS[0]}, {PARTS[1]} without {INDEX}"):
        safetensors_files.weights_sha256(sharded)


def test_weights_as_pickle_only_say_how_to_convert_them(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    message = (
        r"pickle only \(pytorch_model\.bin\).* is not read; allowed: model\.safetensors; .*"
        r"transformers\.BertForMaskedLM\.from_pretrained\(FOLDER\)\.save_pretrained\(FOLDER\)"
    )
    with pytest.raises(ValueError, match=message):
        safetensors_files.tensors(tmp_path)


def test_a_folder_without_weights_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"got no model\.safetensors and no model\.safetensors\.i"):
        safetensors_files.tensors(tmp_path)


def header(text, data=b""):
    return len(text).to_bytes(8, "little") + text + data


ONE = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, %d]}}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes cannot hold"),
        (b"version https://git-lfs.github.com/spec/v1\n", "43 bytes cannot hold"),
        (header(b"{nonsense"), "its header is not JSON"),
        (header(b"[1]"), "its header is no JSON object"),
        (header(b'{"a": {"dtype": "F32"}}'), "tensor a is"),
        (header(ONE % 8, bytes(7)), "its tensors have 8 bytes, and the file has 7"),
        (header(ONE % 4, bytes(4)), "tensor a has 4 bytes"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(tmp_path, content, reason):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.safetensors: {reason}.*; allowed: a whole"):
        safetensors_files.tensors(tmp_path)
