"""Runs of a small decoder on prompts with answers, on packs of them, and on running text."""

import functools
import json
import math

import numpy as np
import pytest
import yaml

from helpers.decoders import CHARACTERS, OF_LLAMA, characters, decoder
from helpers.prepared import reset_accelerate
from helpers.stored import store_result
from rankwise.core.safetensors_files import weights_sha256
from rankwise.data import datasets, model_files
from rankwise.study.plan import Plan
from rankwise.training import run as training

pytestmark = pytest.mark.slow

SUMS = {
    "task": "instruction_tuning",
    "generated": {"kind": "arithmetic", "seed": 2, "terms_below": 10, "rows": {"train": 115, "test": 40}},
    "report_split": "test",
    "max_length_tokens": 7,
    "selection_rows": 15,
}  # fmt: skip
ENTRIES = {
    "sums": SUMS,
    "packed": {**SUMS, "packing": True, "max_length_tokens": 32},
    "book": {
        "task": "language_modelling", "files": {"folder": "${BOOK}", "format": "text"},
        "splits": {"train": {"path": "book.txt"}, "test": {"path": "end.txt"}}, "report_split": "test",
        "text": "text", "max_length_tokens": 16, "stride_tokens": 8, "selection_rows": 5,
    },
}  # fmt: skip
SHAPES = {"query": [32, 32], "key": [16, 32], "value": [16, 32], "output": [32, 32]}
LINES = [
    f"line {number}: the {word} is {number}\n"
    for number in range(40)
    for word in ("cat", "old dog")
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict]:
    root = tmp_path_factory.mktemp("decoders")
    decoder("llama").save_pretrained(root / "model")
    characters().save_pretrained(root / "model")
    (root / "book.txt").write_text("".join(LINES))
    (root / "end.txt").write_text("".join(LINES[:9]))
    (root / "config").mkdir()
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    model = {
        "family": "llama", "hidden_size": 32, "max_positions_tokens": 64,
        "architecture": {**OF_LLAMA, "bos_token_id": 1, "eos_token_id": 2},
        "modules": {role: {"name": names[role], "shape": shape} for role, shape in SHAPES.items()},
        "head": {"language_modelling": ["lm_head"]},
        "weights": {"files": str(root / "model"), "sha256": weights_sha256(root / "model")},
    }  # fmt: skip
    (root / "config/models.yaml").write_text(yaml.safe_dump({"small": model}))
    (root / "config/datasets.yaml").write_text(yaml.safe_dump(ENTRIES))
    grid = {"models": ["small"], "seeds": [0], "methods": ["full"], "datasets": list(ENTRIES)}
    study = {
        "name": "decoders", "question": "?", "device": "cpu",
        "schedule": {"updates": 12, "batch_size": 8, "accumulation_steps": 2},
        "train": [
            {**grid, "override": {"full": {"learning_rate": 1e-2}}},
            {**grid, "methods": ["prompt_tuning"], "ranks": [2], "datasets": ["sums"]},
        ],
    }  # fmt: skip
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK", str(root))
        patch.chdir(root)
        plan = Plan(study, root)
        for kind, name in plan.inputs():
            make = {"dataset": datasets.prepare_dataset, "model": model_files.prepare_model}[kind]
            request = plan.input_request(kind, name)
            store_result(root, request, functools.partial(make, request))
        for cell in plan.cells("train"):
            reset_accelerate()
            result = training.train(plan.request("train", cell))
            found[cell.dataset, cell.method] = json.loads(json.dumps(result))
    return found


def test_training_lowers_the_loss_of_the_answers(results):
    for key, result in results.items():
        assert result.get("status", "ok") == "ok", (key, result.get("reason"))
        losses = [row["selection_loss_nats"] for row in result["history"]]
        assert min(losses[1:]) < losses[0], key


def test_answers_are_scored_a_row_each_also_where_training_packs_them(results):
    for key in (("sums", "full"), ("packed", "full"), ("sums", "prompt_tuning")):
        result = results[key]
        examples = result["examples"]
        assert len(examples["predictions"]) == 40
        assert set(examples["predictions"]) <= {2, 3}  # one or two digits, and the end
        losses, weights = (np.array(examples[name]) for name in ("loss_nats", "predictions"))
        mean = (losses * weights).sum() / weights.sum()
        assert result["metrics"]["perplexity"] == pytest.approx(math.exp(mean), rel=1e-6)
        right = np.array(examples["correct_fraction"]) @ weights / weights.sum()
        assert result["metrics"]["accuracy_fraction"] == pytest.approx(right, rel=1e-6)


def test_packing_makes_fewer_rows_of_the_same_answers(results):
    """12 updates of 16 rows are more than an epoch of packs of several examples each."""
    single, packed = (results[name, "full"]["metrics"] for name in ("sums", "packed"))
    assert packed["samples"] < single["samples"] or packed["tokens"] > single["tokens"]


def test_what_was_cut_is_counted_for_each_split(results):
    """`9+9=` with its begin, `18` and its end are 8 tokens, one too many for 7."""
    cut = {row["split"]: row for row in results["sums", "full"]["data"]["cut"]}
    two_digits = sum(weight == 3 for weight in results["sums", "full"]["examples"]["predictions"])
    assert cut["test"] == {"split": "test", "cut_prompt_rows": two_digits, "cut_answer_rows": 0}
    assert set(cut) == {"train", "selection", "test"}
    assert all(row["cut_prompt_rows"] == 0 for row in results["packed", "full"]["data"]["cut"])


def test_running_text_reports_words_and_bytes_of_the_whole_split(results):
    result = results["book", "full"]
    text = "".join(LINES[:9])
    assert set(text) <= set(CHARACTERS)
    examples, metrics = result["examples"], result["metrics"]
    assert sum(examples["predictions"]) == len(text) - 1  # a token a character, all but the first
    assert sum(examples["words"]) == len(text.split())
    assert sum(examples["text_bytes"]) == len(text) - 1
    nats = np.array(examples["loss_nats"]) @ np.array(examples["predictions"])
    assert metrics["word_perplexity"] == pytest.approx(math.exp(nats / len(text.split())), rel=1e-6)
    expected = nats / math.log(2) / (len(text) - 1)
    assert metrics["bits_per_byte"] == pytest.approx(expected, rel=1e-6)
