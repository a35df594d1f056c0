"""Parameters that a method adds, in fp32 or bf16, on a base that computes in bf16."""

import pytest
import torch

from helpers.profiling import ledger_request
from rankwise.core.errors import Unsupported
from rankwise.measure.memory.persistent import memory
from rankwise.measure.step import Step, step

FAST = ["lora", "adapter_pfeiffer", "lora_fa"]
SLOW = ["prompt_tuning", "ia3", "oft", "miss", "sparse_lora"]
METHODS = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def stepped(method: str, measurement: str = "ledger", **override: str) -> tuple[Step, dict]:
    """A real step on the CPU, taken twice, and its request."""
    request = ledger_request("tiny", method, measurement, override={method: override}, batch_size=2)
    torch.manual_seed(0)
    training_step = step(request, "cpu")
    training_step.run()
    training_step.run()
    return training_step, request


def dtypes(training_step: Step) -> set[torch.dtype]:
    """Of what trains, the new head apart."""
    return {
        param.dtype
        for name, param in training_step.model.named_parameters()
        if param.requires_grad and "classifier" not in name
    }


@pytest.mark.parametrize("adapters", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_adapters_train_in_the_dtype_that_is_asked_for(method: str, adapters: str) -> None:
    training_step, _ = stepped(method, weights="bf16", adapter_dtype=adapters)
    assert dtypes(training_step) == {DTYPES[adapters]}
    assert torch.isfinite(training_step.forward())
    heads = [p for name, p in training_step.model.named_parameters() if "classifier" in name]
    assert {param.dtype for param in heads if param.requires_grad} == {torch.float32}


@pytest.mark.parametrize(
    ("method", "adapters"), [("lora", "fp32"), ("lora", "bf16"), ("dora", "fp32"), ("ia3", "bf16")]
)
def test_a_quantized_base_computes_in_bf16(method: str, adapters: str) -> None:
    override = {"weights": "nf4", "compute": "bf16", "adapter_dtype": adapters}
    training_step, _ = stepped(method, **override)
    assert dtypes(training_step) == {DTYPES[adapters]}
    embeddings = training_step.model.get_input_embeddings().weight
    assert embeddings.dtype == torch.bfloat16
    assert torch.isfinite(training_step.forward())


@pytest.mark.parametrize(("adapters", "size"), [("fp32", 4), ("bf16", 2)])
def test_bytes_between_steps_follow_the_dtype(adapters: str, size: int) -> None:
    """The profile compares them with a real step; adapters and two moments have one dtype."""
    override = {"lora": {"weights": "bf16", "adapter_dtype": adapters}}
    request = ledger_request("tiny", "lora", "memory", rank=4, override=override)
    metrics = memory(request)["metrics"]
    # LoRA of rank 4 on query and value of two layers of width 64; the head of 64 x 64 + 64 + 2 x 64
    # + 2 numbers stays in fp32.
    adapter, head = 2 * 2 * 4 * (64 + 64), 64 * 64 + 64 + 2 * 64 + 2
    assert metrics["adapter_bytes"] == size * adapter + 4 * head
    counters = 4 * (2 * 2 * 2 + 4)  # torch's AdamW counts the steps of each tensor
    assert metrics["optimizer_state_bytes"] == 2 * metrics["adapter_bytes"] + counters


def test_a_layer_that_cannot_compute_so_is_named() -> None:
    with pytest.raises(Unsupported, match=r"adapter_dtype bf16: peft's vera\.layer\.Linear"):
        stepped("vera", weights="bf16", adapter_dtype="bf16")


def test_a_method_that_adds_nothing_is_named() -> None:
    """Planning refuses the shipped ones; this is what a user's own method gets."""
    request = ledger_request("tiny", "bitfit")
    request["method"] = {**request["method"], "adapter_dtype": "fp32"}
    with pytest.raises(Unsupported, match="the method adds no parameters"):
        step(request, "meta")
