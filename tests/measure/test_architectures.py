"""Ledgers of further architectures: predicted from shapes, and measured by the CPU's allocator.

The models are small, have random weights, and are described by the entries that `rankwise add
model` derives from their configurations.
"""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn import functional

from helpers.repository import ROOT
from rankwise.cli.main import main
from rankwise.core.config import library
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.ledger import LIMIT, ledger
from rankwise.measure.speed.latency import forward
from rankwise.measure.speed.throughput import throughput
from rankwise.models.derive import Choices, derive
from rankwise.models.experts import grouped_product
from rankwise.study.plan import Plan

SMALL = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
    "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
CONFIGURATIONS = {
    "mixtral": {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**SMALL, "num_experts": 8, **EXPERTS},
    "gemma2": {**SMALL, "sliding_window": 16},
    "t5": {
        "vocab_size": 256, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
        "n_positions": 128, "decoder_start_token_id": 0,
    },
    "bart": {
        "vocab_size": 256, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 128,
    },
}  # fmt: skip
CLASSES = {
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
}
WRITES_TEXT = ("t5", "bart")  # with a decoder of its own


@functools.cache
def entry(family: str) -> dict:
    with tempfile.TemporaryDirectory() as place:
        config = transformers.AutoConfig.for_model(family, **CONFIGURATIONS[family])
        config.architectures = [CLASSES[family]]
        config.save_pretrained(place)
        return derive(place, Choices(family, shapes_only=True), Path(place)).entry


@functools.cache
def dataset(task: str) -> dict:
    named = {"sequence_to_sequence": {"label": "b"}}.get(task, {})
    return {
        **library(ROOT)["datasets"]["wikitext2"],
        **{"task": task, "text": "a", **named},
    }


def request(family: str, method: str = "lora", **grid: object) -> dict:
    """The request of a measured ledger, or of another profile, with 4 texts of 32 tokens."""
    task = "sequence_to_sequence" if family in WRITES_TEXT else "language_modelling"
    asked = {
        "models": [family], "datasets": ["texts"], "methods": [method], "ranks": [4], "measurements": ["ledger"],
        "batch_size": 4, "sequence_length_tokens": 32, **grid,
    }  # fmt: skip
    study = {"name": "t", "question": "?", "device": "cpu", "cpu_threads": 1, "profile": [asked]}
    added = {"models": {family: entry(family)}, "datasets": {"texts": dataset(task)}}
    plan = Plan(study, ROOT, added=added)
    (measurement,) = asked["measurements"]
    return plan.request(measurement, plan.cells(measurement)[0])


@pytest.mark.parametrize(
    ("family", "method", "settings"),
    [
        ("mixtral", "lora", {}),
        ("mixtral", "full", {}),
        ("qwen3_moe", "full", {"checkpointing": True}),
        pytest.param("qwen3_moe", "lora", {"accumulation_steps": 2}, marks=pytest.mark.slow),
        ("gemma2", "lora", {}),
        ("t5", "lora", {"target_length_tokens": 8}),
        pytest.param("t5", "full", {"target_length_tokens": 96}, marks=pytest.mark.slow),
        pytest.param("bart", "lora", {"target_length_tokens": 8}, marks=pytest.mark.slow),
    ],
)
def test_the_prediction_is_what_the_allocator_says(
    family: str, method: str, settings: dict
) -> None:
    metrics = ledger(request(family, method, **settings))["metrics"]
    assert metrics["measured_peak_bytes"] > 0
    assert abs(metrics["residual_fraction"]) <= LIMIT


@pytest.mark.parametrize("trains", [True, False])
def test_a_product_of_experts_has_the_shapes_of_torchs(trains: bool) -> None:
    """Of the result and of the gradients; on the CPU torch's own product runs."""
    shapes = {}
    for device, product in (("cpu", functional.grouped_mm), ("meta", grouped_product)):
        rows = torch.randn(24, 16, device=device, requires_grad=True)
        weights = torch.randn(4, 32, 16, device=device, requires_grad=trains)
        ends = torch.tensor([6, 6, 20, 24], dtype=torch.int32, device=device)
        result = product(rows, weights.transpose(-2, -1), offs=ends)
        result.backward(torch.ones(24, 32, device=device))
        made = [result, rows.grad, *([weights.grad] if trains else [])]
        shapes[device] = [(tensor.shape, tensor.stride()) for tensor in made]
        assert (weights.grad is None) == (not trains)
    assert shapes["meta"] == shapes["cpu"]


def test_experts_are_not_stored_in_4_bits() -> None:
    result = ledger(request("mixtral", "qlora", measured=False))
    assert result["status"] == "unsupported"
    assert result["reason"].startswith(
        "weights nf4_double: model.layers.0.mlp.experts.gate_up_proj holds the matrices of several experts, "
    )


@pytest.mark.parametrize(
    ("measurement", "measure"),
    [("flops", flops), ("forward", forward), ("throughput", throughput)],
)
def test_operations_of_experts_are_not_counted(measurement: str, measure: Callable) -> None:
    options = {} if measure is flops else {"processes": 1}
    result = measure(request("mixtral", measurements=[measurement]), **options)
    assert result["status"] == "unsupported"
    assert result["reason"].startswith("FLOPs of a mixture of experts are not counted")


def test_a_shorter_target_needs_less() -> None:
    long, short = (
        ledger(request("t5", measured=False, target_length_tokens=tokens))["metrics"]["peak_bytes"]
        for tokens in (96, 8)
    )
    # Of the 88 tokens less, the logits alone take 256 numbers of 4 bytes for each of 4 texts.
    assert long - short > 88 * 256 * 4 * 4


def test_a_model_of_images_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert main(["add", "model", str(tmp_path), "--shapes"]) == 1
    assert capsys.readouterr().err == (
        f"rankwise: {tmp_path}/config.json: model_type: got 'vit', allowed: a family that reads input_ids: "
        "there are no batches of pixel_values here\n"
    )
