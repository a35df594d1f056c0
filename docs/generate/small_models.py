"""Folders with small models for the page of mistakes: right ones, and some that lack a part.

Every weight is zero: planning reads names and shapes only. Standard library only.
"""

import json
import math
import struct
from pathlib import Path

WIDTH, HIDDEN, LAYERS, WORDS, POSITIONS = 64, 128, 2, 96, 64
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write(folder: Path) -> None:
    """Write a folder of each kind: right, or without a part, and a decoder."""
    for name in ("right", "no_tokenizer", "pickle_only", "lost_shard", "with_bom"):
        _write_model(folder / name)
    (folder / "no_tokenizer/tokenizer.json").unlink()
    (folder / "pickle_only/model.safetensors").rename(folder / "pickle_only/pytorch_model.bin")
    _divide(folder / "lost_shard")
    (folder / "lost_shard" / SHARDS[1]).unlink()
    config = folder / "with_bom/config.json"
    config.write_text(config.read_text(encoding="utf-8"), encoding="utf-8-sig")
    _write_decoder(folder / "decoder")


def _write_decoder(folder: Path) -> None:
    """A Llama whose tokenizer has an end-of-text token, and no chat template."""
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
        "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": WORDS, "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": True,
    }  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "word0"}
    for name, content in (
        ("config", config), ("tokenizer", _tokenizer()), ("tokenizer_config", settings),
    ):  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    shapes = {"model.embed_tokens.weight": [WORDS, WIDTH], "model.norm.weight": [WIDTH]}
    for layer in range(LAYERS):
        place = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{place}.self_attn.{name}.weight"] = [WIDTH, WIDTH]
        for name in ("gate_proj", "up_proj"):
            shapes[f"{place}.mlp.{name}.weight"] = [HIDDEN, WIDTH]
        shapes[f"{place}.mlp.down_proj.weight"] = [WIDTH, HIDDEN]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{place}.{name}.weight"] = [WIDTH]
    _write_weights(folder / "model.safetensors", shapes)


def _tokenizer() -> dict:
    vocabulary = {f"word{number}": number for number in range(WORDS)}
    return {"model": {"type": "WordLevel", "vocab": vocabulary}, "added_tokens": []}


def _write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    config = {
        "architectures": ["DistilBertForMaskedLM"], "model_type": "distilbert", "dim": WIDTH,
        "hidden_dim": HIDDEN, "n_layers": LAYERS, "n_heads": 4, "vocab_size": WORDS,
        "max_position_embeddings": POSITIONS,
    }  # fmt: skip
    for name, content in (("config", config), ("tokenizer", _tokenizer())):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    _write_weights(folder / "model.safetensors", _shapes())


def _shapes() -> dict[str, list[int]]:
    """The matrices of a DistilBERT, by name."""
    shapes = {
        "distilbert.embeddings.word_embeddings.weight": [WORDS, WIDTH],
        "distilbert.embeddings.position_embeddings.weight": [POSITIONS, WIDTH],
    }
    for layer in range(LAYERS):
        place = f"distilbert.transformer.layer.{layer}"
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes[f"{place}.attention.{name}.weight"] = [WIDTH, WIDTH]
        shapes[f"{place}.ffn.lin1.weight"] = [HIDDEN, WIDTH]
        shapes[f"{place}.ffn.lin2.weight"] = [WIDTH, HIDDEN]
    return shapes


def _write_weights(file: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file with float32 zeros: the header's length, the header, the data."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def _divide(folder: Path) -> None:
    """Replace a whole file of weights by two shards and their index."""
    (folder / "model.safetensors").unlink()
    shapes = _shapes()
    half = len(shapes) // 2
    shard_by_name = {name: SHARDS[number >= half] for number, name in enumerate(shapes)}
    for shard in SHARDS:
        part = {name: shape for name, shape in shapes.items() if shard_by_name[name] == shard}
        _write_weights(folder / shard, part)
    (folder / INDEX).write_text(json.dumps({"weight_map": shard_by_name}), encoding="utf-8")
