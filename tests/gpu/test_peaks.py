"""Predicted against measured peaks of whole steps, by method."""

import pytest
import torch

from helpers.profiling import ledger_request
from helpers.real_gpu import ARCHITECTURE, DEVICE, HAS_GPU, on_gpu_or_rehearsed
from rankwise.measure.memory.ledger import LIMIT, ledger

pytestmark = on_gpu_or_rehearsed

# A step of a size that matters, or a tiny one where this is rehearsed.
MODEL = "distilbert" if HAS_GPU else "tiny"
SIZES = {"batch_size": 32, "sequence_length_tokens": 128} if HAS_GPU else {"batch_size": 4}
RANK = 16 if HAS_GPU else 4


def metrics(method: str, **settings: object) -> dict:
    grid = {"rank": RANK, "device": DEVICE, "gpu": ARCHITECTURE, **SIZES, **settings}
    if MODEL == "tiny":
        grid["dataset"] = "generated_reviews"
    result = ledger(ledger_request(MODEL, method, **grid))
    assert "status" not in result, result
    return result["metrics"]


METHODS = ["full", "lora", "rsvd", "galore", "vlorp", "full_released"]


@pytest.mark.parametrize("method", METHODS if HAS_GPU else ["lora"])
def test_the_prediction_holds(method: str) -> None:
    found = metrics(method)
    predicted = found.get("peak_allocated_bytes", found["peak_bytes"])
    assert found["measured_peak_bytes"] == pytest.approx(predicted, rel=LIMIT)


SETTINGS = {
    "bf16": ("lora", {"precision": "bf16"}),
    "bf16, all weights": ("full", {"precision": "bf16"}),
    "eager": ("lora", {"attention": "eager"}),
    "padded": ("lora", {"padded": True}),
    "accumulation": ("galore", {"accumulation_steps": 4}),
}


@pytest.mark.parametrize("name", SETTINGS if HAS_GPU else ["eager"])
def test_the_prediction_holds_under_other_settings(name: str) -> None:
    method, settings = SETTINGS[name]
    found = metrics(method, **settings)
    predicted = found.get("peak_allocated_bytes", found["peak_bytes"])
    assert found["measured_peak_bytes"] == pytest.approx(predicted, rel=LIMIT)


@pytest.mark.skipif(not HAS_GPU, reason="on a CPU, tests/measure/test_ledger.py has it")
def test_the_prediction_of_a_quantized_base_holds() -> None:
    pytest.importorskip("bitsandbytes")
    found = metrics("qlora")
    predicted = found.get("peak_allocated_bytes", found["peak_bytes"])
    assert found["measured_peak_bytes"] == pytest.approx(predicted, rel=LIMIT)


@pytest.mark.skipif(not HAS_GPU, reason="on a CPU, tests/measure/test_ledger.py has it")
def test_gradients_live_through_micro_batches() -> None:
    """By hand: with several micro-batches, a gradient of each weight is alive in the forward pass."""
    once, several = (metrics("full", accumulation_steps=count) for count in (1, 4))
    name = "measured_forward_peak_bytes"
    gained = several[name] - once[name]
    assert gained == pytest.approx(once["weights_bytes"], rel=0.02)


@pytest.mark.skipif(not HAS_GPU, reason="a CPU has no allocator that reserves")
@pytest.mark.parametrize("method", ["full", "lora", "galore"])
def test_reserved_memory_is_predicted(method: str) -> None:
    torch.cuda.empty_cache()
    found = metrics(method)
    assert found["measured_reserved_bytes"] == pytest.approx(found["peak_reserved_bytes"], rel=0.05)
