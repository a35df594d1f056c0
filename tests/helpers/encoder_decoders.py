"""A small T5 with random weights in a folder, its entry, and a dataset whose target is its text."""

import functools
import json
from pathlib import Path

import numpy as np
import torch
import transformers
import yaml

from helpers.stored import store_result
from rankwise.core.provenance import file_sha256
from rankwise.data import datasets, model_files
from rankwise.study.plan import Plan
from rankwise.training.pretrain import word_tokenizer

WORDS = ("good", "bad", "film", "very", "the", "a", "plot", "was")
WIDTH, INNER, LAYERS, VOCABULARY = 32, 64, 1, 16
SQUARE = [WIDTH, WIDTH]
ENTRY = {
    "family": "t5",
    "hidden_size": WIDTH,
    "max_positions_tokens": 64,
    "architecture": {
        "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "num_heads": 4, "d_ff": INNER,
        "num_layers": LAYERS, "num_decoder_layers": LAYERS, "dropout_rate": 0.0, "feed_forward_proj": "gated-gelu",
    },
    "modules": {
        "query": {"name": "q", "shape": SQUARE},
        "key": {"name": "k", "shape": SQUARE},
        "value": {"name": "v", "shape": SQUARE},
        "output": {"name": "o", "shape": SQUARE},
        "gate": {"name": "wi_0", "shape": [INNER, WIDTH]},
        "up": {"name": "wi_1", "shape": [INNER, WIDTH]},
        "down": {"name": "wo", "shape": [WIDTH, INNER]},
    },
    "head": {"sequence_to_sequence": ["lm_head"]},
}  # fmt: skip
DATASET = {
    "task": "sequence_to_sequence",
    "files": {"format": "jsonl"},
    "splits": {"train": {"path": "train.jsonl"}, "test": {"path": "test.jsonl"}},
    "report_split": "test",
    "text": "text",
    "label": "copy",
    "max_length_tokens": 7,
    "selection_rows": 20,
}


def rows(split: str, size: int) -> list[dict]:
    """Texts of two to six words, and the first three of these."""
    chance = np.random.default_rng(len(split))
    texts = [chance.choice(WORDS, chance.integers(2, 7)).tolist() for _ in range(size)]
    return [{"text": " ".join(words), "copy": " ".join(words[:3])} for words in texts]


def save_model(folder: Path, **changes: object) -> Path:
    """Save a T5 with random weights and a tokenizer of WORDS.

    Args:
        folder: Gets the files.
        changes: Of the configuration.
    """
    config = transformers.T5Config(
        **{**ENTRY["architecture"], "pad_token_id": 0, "decoder_start_token_id": 0, **changes}
    )
    torch.manual_seed(0)
    transformers.logging.disable_progress_bar()
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    word_tokenizer(list(WORDS)).save_pretrained(folder)
    return folder


def write(root: Path) -> None:
    """Write the model, the data and their entries, both called `copies`, into a project."""
    (root / "config").mkdir(parents=True)
    save_model(root / "t5")
    for split, size in (("train", 400), ("test", 40)):
        lines = [json.dumps(row) for row in rows(split, size)]
        (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    sha256 = file_sha256(root / "t5/model.safetensors")
    files = {**DATASET["files"], "folder": str(root)}
    entries = {
        "datasets": {**DATASET, "files": files},
        "models": {**ENTRY, "weights": {"files": str(root / "t5"), "sha256": sha256}},
    }
    for kind, entry in entries.items():
        (root / f"config/{kind}.yaml").write_text(yaml.safe_dump({"copies": entry}))


def prepare(plan: Plan, root: Path) -> None:
    """Prepare model and dataset as their jobs do; the working directory is the project."""
    makers = {"dataset": datasets.prepare_dataset, "model": model_files.prepare_model}
    for kind, name in plan.inputs():
        request = plan.input_request(kind, name)
        store_result(root, request, functools.partial(makers[kind], request))
