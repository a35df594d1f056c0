"""The memory ledger: against torch's own allocator, against closed forms, against published peaks."""

import resource
import subprocess
import sys

import pytest

from helpers.profiling import ledger_request
from helpers.repository import ROOT
from rankwise.measure.memory import peaks, phases
from rankwise.measure.memory.ledger import LIMIT, ledger
from rankwise.measure.memory.persistent import predict
from rankwise.measure.memory.phases import STEPS
from rankwise.measure.memory.tracker import KINDS
from rankwise.measure.step import adapted

# Published system A: measured peaks of CUDA's allocator on IMDB (epoch_peak_memory.csv), 32 x 128.
PUBLISHED_PEAKS = {
    ("lora_qkv", 4): 1461499392,
    ("lora_qkv", 8): 1461908992,
    ("lora_qkv", 16): 1466922496,
    ("lora_qkv", 64): 1497003520,
    ("lora_qkv", 128): 1541043712,
    ("weight_reduction", 4): 1245872128,
    ("weight_reduction", 8): 1247420416,
    ("weight_reduction", 16): 1250516992,
    ("weight_reduction", 64): 1269096448,
    ("weight_reduction", 128): 1293869056,
}
FAST_PEAKS = {("lora_qkv", 4), ("weight_reduction", 128)}


# Predicted and measured -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["full", "head_only", "frozen", "lora", "adapter_pfeiffer", "rsvd", "full_released", "psoft"],
)
def test_the_prediction_is_what_the_allocator_says(method: str) -> None:
    """To the byte, except for scalars that live on the CPU whatever the device.

    check_smoke.py verifies it for every method.
    """
    metrics = ledger(ledger_request("tiny", method))["metrics"]
    assert abs(metrics["residual_bytes"]) <= 1024
    assert metrics["measured_peak_bytes"] > 0


@pytest.mark.parametrize(("model", "dataset"), [("minilm", "sst2"), ("stories260k", "wikitext2")])
def test_other_architectures_close_too(model: str, dataset: str) -> None:
    """minilm has dropout in attention, stories260k shares keys between heads."""
    request = ledger_request(model, "lora", dataset=dataset, batch_size=2)
    metrics = ledger(request)["metrics"]
    assert abs(metrics["residual_fraction"]) < 1e-3


@pytest.mark.parametrize("method", ["full_bf16", pytest.param("lora_bf16", marks=pytest.mark.slow)])
def test_bf16_closes_except_for_workspace(method: str) -> None:
    """On processors with bf16 instructions, oneDNN's products have a workspace."""
    metrics = ledger(ledger_request("tiny", method, batch_size=16))["metrics"]
    workspace = metrics["workspace_bytes"]
    assert abs(metrics["residual_fraction"]) <= LIMIT
    assert workspace >= 0
    difference = metrics["measured_peak_bytes"] - metrics["peak_bytes"]
    assert metrics["residual_bytes"] == difference - workspace


@pytest.mark.slow
def test_workspace_is_what_an_operator_frees_before_it_returns() -> None:
    """Fourier transforms take workspace of some tensors' size; a step without them takes none."""
    transforms, plain = (
        ledger(ledger_request("tiny", name))["metrics"] for name in ("c3a", "lora")
    )
    assert transforms["workspace_bytes"] > 0.02 * transforms["measured_peak_bytes"]
    assert plain["workspace_bytes"] == 0


def test_temporary_tensors_between_operators_are_no_workspace() -> None:
    """One step of AdamW for all tensors at once: temporary tensors as large as the weights."""
    request = ledger_request("tiny", "full", override={"full": {"optimizer": {"foreach": True}}})
    measured, tensors = peaks.cpu_and_tensors(request)
    update = "measured_update_peak_bytes"
    assert measured[update] - tensors[update] < 100  # scalars


def test_activation_checkpointing_is_seen() -> None:
    plain, checkpointed = (
        ledger(ledger_request("stories260k", "full", dataset="wikitext2", checkpointing=on))
        for on in (False, True)
    )
    metrics = checkpointed["metrics"]
    assert metrics["measured_peak_bytes"] < 0.8 * plain["metrics"]["measured_peak_bytes"]
    assert abs(metrics["residual_fraction"]) <= LIMIT


def test_gradients_live_through_micro_batches() -> None:
    """They are as large as the weights that train, and alive in the second forward pass."""
    once, twice = (
        ledger(ledger_request("tiny", "full", measured=False, accumulation_steps=steps))["metrics"]
        for steps in (1, 2)
    )
    gained = twice["forward_peak_bytes"] - once["forward_peak_bytes"]
    assert gained == pytest.approx(once["weights_bytes"], rel=0.01)
    assert twice["peak_bytes"] > once["peak_bytes"]


LLAMA = {"model": "stories260k", "dataset": "wikitext2"}  # keys are shared between heads
STEPS_ON_A_CPU = {
    "autocast": ("lora", {"precision": "bf16"}),
    "autocast, all weights, padded, 4 micro-batches": (
        "full",
        {**LLAMA, "precision": "bf16", "padded": True, "accumulation_steps": 4},
    ),
    "autocast and checkpointing": ("lora", {**LLAMA, "precision": "bf16", "checkpointing": True}),
    "fp16 and its scaled loss": ("lora", {"precision": "fp16"}),
    "fp16, all weights, padded, 4 micro-batches": (
        "full",
        {**LLAMA, "precision": "fp16", "padded": True, "accumulation_steps": 4},
    ),
    "fp16, projected gradients, eager": ("galore", {"precision": "fp16", "attention": "eager"}),
    "fp16, one kernel": (
        "full",
        {"precision": "fp16", "override": {"full": {"optimizer": {"fused": True}}}},
    ),
    "fp16 and checkpointing": ("lora", {**LLAMA, "precision": "fp16", "checkpointing": True}),
    "fp16 over a quantized base": (
        "qlora",
        {"precision": "fp16", "override": {"qlora": {"compute": "autocast"}}},
    ),
    "fp16 without gradients": ("mezo", {"precision": "fp16"}),
    "autocast in fp16, loss in chunks": ("full", {**LLAMA, "precision": "fp16", "loss": "chunked"}),
    "autocast over a quantized base": ("qlora", {"precision": "bf16"}),
    "padding": ("full", {"padded": True}),
    "padding and grouped keys": ("lora", {**LLAMA, "padded": True}),
    "eager attention, padded": ("lora", {**LLAMA, "attention": "eager", "padded": True}),
    "a cache and outputs that stay": ("lora", {**LLAMA, "use_cache": True, "keeps_outputs": True}),
    "all tensors at once": ("full", {"override": {"full": {"optimizer": {"foreach": True}}}}),
    "released gradients, 2 micro-batches": ("rsvd_released", {"accumulation_steps": 2}),
    "one kernel": ("full", {"override": {"full": {"optimizer": {"fused": True}}}}),
}
FAST_STEPS = {"autocast", "fp16 and its scaled loss", "released gradients, 2 micro-batches"}


def step_case(name: str) -> object:
    marks = () if name in FAST_STEPS else pytest.mark.slow
    return pytest.param(*STEPS_ON_A_CPU[name], id=name, marks=marks)


@pytest.mark.parametrize(("method", "settings"), map(step_case, STEPS_ON_A_CPU))
def test_every_kind_of_step_is_what_the_allocator_says(method: str, settings: dict) -> None:
    """oneDNN's workspace apart: see the ledger's docstring."""
    metrics = ledger(ledger_request(**{"model": "tiny", "method": method, **settings}))["metrics"]
    assert abs(metrics["residual_fraction"]) <= LIMIT


PACKS = {"batch_size": 2, "sequence_length_tokens": 128}


@pytest.mark.parametrize("attention", ["eager", pytest.param("sdpa", marks=pytest.mark.slow)])
def test_the_mask_of_packs_is_what_the_allocator_says(attention: str) -> None:
    """(batch, 1, tokens, tokens) in fp32, and a position for each token, beside a mask of tokens."""
    request = ledger_request(**LLAMA, method="lora", padded=True, attention=attention, **PACKS)
    packed = ledger({**request, "packed": True})["metrics"]
    assert abs(packed["residual_fraction"]) <= LIMIT
    plain = ledger({**request, "measured": False})["metrics"]
    assert packed["inputs_bytes"] - plain["inputs_bytes"] == 4 * 2 * 128 * 128


def test_a_loss_scaler_keeps_a_scale_and_a_count() -> None:
    """In 4 bytes each. MeZO has no gradients to scale."""
    for method, kept in (("full", 8), ("mezo", 0)):
        bf16, fp16 = (
            ledger(ledger_request("tiny", method, measured=False, precision=precision))["metrics"]
            for precision in ("bf16", "fp16")
        )
        assert fp16["buffers_bytes"] - bf16["buffers_bytes"] == kept


def on_cuda(method: str, **settings: object) -> dict:
    """Metrics of a predicted step on a GPU."""
    request = ledger_request("tiny", method, device="cuda", measured=False, **settings)
    return ledger(request)["metrics"]


def test_an_optimizers_kernel_decides_its_temporary_memory() -> None:
    """AdamW of all tensors at once takes the size of all weights for a moment, fused AdamW nothing."""
    peaks = {}
    for kernel in ("foreach", "fused"):
        override = {"full": {"optimizer": {kernel: True}}}
        peaks[kernel] = on_cuda("full", override=override)
    temporary = peaks["foreach"]["update_peak_bytes"] - peaks["fused"]["update_peak_bytes"]
    assert temporary == pytest.approx(peaks["fused"]["weights_bytes"], rel=0.01)
    assert on_cuda("full")["update_peak_bytes"] == peaks["foreach"]["update_peak_bytes"]


def test_each_thread_has_a_workspace_of_cublas() -> None:
    """`:4096:2:16:8` is 2 buffers of 4096 KiB and 8 of 16; 32 MiB on Hopper. Backward has its own."""
    for method, threads in (("lora", 2), ("frozen", 1)):
        metrics = on_cuda(method)
        assert metrics["cublas_workspace_bytes"] == threads * (2 * 4096 + 8 * 16) * 1024
        parts = ("peak_bytes", "cublas_workspace_bytes", "rounding_bytes")
        assert metrics["peak_allocated_bytes"] == sum(metrics[part] for part in parts)
    assert on_cuda("lora", gpu="hopper")["cublas_workspace_bytes"] == 2 * 32 * 2**20


def test_outputs_that_stay_are_logits_and_a_cache() -> None:
    """Two layers of keys and values, and logits of one vocabulary, through the next forward pass."""
    sizes = {"batch_size": 2, "sequence_length_tokens": 32, "device": "cuda", "measured": False}
    request = ledger_request(**LLAMA, method="lora", **sizes)
    shape = request["model"]["architecture"]
    plain, kept, cached = (
        ledger({**request, **extra})["metrics"]["first_update_peak_bytes"]
        for extra in ({}, {"keeps_outputs": True}, {"keeps_outputs": True, "use_cache": True})
    )
    tokens = 2 * 32
    logits = 4 * tokens * shape["vocab_size"]
    width = shape["hidden_size"] // shape["num_attention_heads"] * shape["num_key_value_heads"]
    cache = 2 * shape["num_hidden_layers"] * 4 * tokens * width
    assert kept - plain == pytest.approx(logits, rel=0.01)
    assert cached - kept == cache


def test_an_evaluation_has_a_batch_of_its_own() -> None:
    small, large = (on_cuda("lora", eval_batch_size=samples) for samples in (8, 64))
    assert large["peak_bytes"] == small["peak_bytes"]
    assert large["evaluation_peak_bytes"] > 2 * small["evaluation_peak_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "galore"])
def test_two_micro_batches_need_what_four_do(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are predicted; here four run, and the allocator reports their peak."""
    request = ledger_request("tiny", method, accumulation_steps=4)
    predicted = ledger({**request, "measured": False})["metrics"]
    monkeypatch.setattr(phases, "MICRO_BATCHES", 4)
    metrics = ledger(request)["metrics"]
    assert metrics["peak_bytes"] == predicted["peak_bytes"]
    assert abs(metrics["measured_peak_bytes"] - predicted["peak_bytes"]) <= 1024


@pytest.mark.slow
def test_a_loss_in_chunks_has_a_smaller_peak() -> None:
    """Evaluations have all logits under either loss."""
    sizes = {"dataset": "wikitext2", "batch_size": 4, "sequence_length_tokens": 128}
    full, chunked = (
        ledger(ledger_request("stories260k", "lora", loss=loss, measured=False, **sizes))["metrics"]
        for loss in ("full", "chunked")
    )
    # 512 tokens over a vocabulary of 512: at least one tensor of logits less, in fp32.
    assert full["backward_peak_bytes"] - chunked["backward_peak_bytes"] > 4 * 512 * 512
    assert chunked["evaluation_peak_bytes"] == full["evaluation_peak_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "full_released"])
def test_a_loss_in_chunks_is_predicted_to_the_byte(method: str) -> None:
    """Also with gradients that are released inside backward."""
    sizes = {"dataset": "wikitext2", "batch_size": 4, "sequence_length_tokens": 128}
    metrics = ledger(ledger_request("stories260k", method, loss="chunked", **sizes))["metrics"]
    assert metrics["tracked_peak_bytes"] == metrics["peak_bytes"]
    assert abs(metrics["residual_bytes"]) <= 1024


@pytest.mark.slow
def test_a_loss_in_chunks_adds_nothing_to_what_checkpointing_leaves() -> None:
    """Where layers are computed again, the allocator has a little more, under either loss."""
    sizes = {"dataset": "wikitext2", "batch_size": 4, "sequence_length_tokens": 128}
    full, chunked = (
        ledger(ledger_request("stories260k", "lora", loss=loss, checkpointing=True, **sizes))[
            "metrics"
        ]
        for loss in ("full", "chunked")
    )
    assert chunked["tracked_peak_bytes"] == chunked["peak_bytes"]
    assert chunked["residual_bytes"] <= full["residual_bytes"]


QUANTIZED = [("nf4_double", "fp32"), ("nf4", "bf16"), ("int8", "bf16")]


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "adapters"), QUANTIZED)
def test_a_quantized_base_in_bf16_is_tracked_to_a_percent(weights: str, adapters: str) -> None:
    override = {"qlora": {"weights": weights, "compute": "bf16", "adapter_dtype": adapters}}
    metrics = ledger(ledger_request("tiny", "qlora", override=override))["metrics"]
    assert metrics["tracked_peak_bytes"] == pytest.approx(metrics["peak_bytes"], rel=0.01)


def peak_case(method: str, rank: int) -> object:
    marks = () if (method, rank) in FAST_PEAKS else pytest.mark.slow
    return pytest.param(method, rank, marks=marks)


@pytest.mark.parametrize(("method", "rank"), [peak_case(*cell) for cell in PUBLISHED_PEAKS])
def test_published_peaks_of_a_real_gpu(method: str, rank: int) -> None:
    """System A's runs with one optimizer (its rSVD runs hold two), whose texts are padded."""
    sizes = {"batch_size": 32, "sequence_length_tokens": 128, "padded": True}
    request = ledger_request(
        "distilbert", method, rank=rank, device="cuda", measured=False, **sizes
    )
    peak = ledger(request)["metrics"]["peak_allocated_bytes"]
    assert peak == pytest.approx(PUBLISHED_PEAKS[method, rank], rel=0.03)


# The ledger's own arithmetic --------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_parts_add_up(device: str) -> None:
    result = ledger(ledger_request("tiny", "qlora", device=device, measured=False))
    metrics = result["metrics"]
    assert sum(metrics[f"{kind}_bytes"] for kind in KINDS) == metrics["peak_bytes"]
    assert metrics["peak_bytes"] == max(metrics[f"{phase}_peak_bytes"] for phase in STEPS)

    highest = dict.fromkeys(STEPS, 0)
    for row in result["timeline"]:
        if row["phase"] in highest:
            total = sum(row[f"{kind}_bytes"] for kind in KINDS)
            highest[row["phase"]] = max(highest[row["phase"]], total)
    assert highest == {phase: metrics[f"{phase}_peak_bytes"] for phase in STEPS}

    if device == "cuda":
        allocated, reserved = metrics["peak_allocated_bytes"], metrics["peak_reserved_bytes"]
        workspace = metrics["cublas_workspace_bytes"]
        assert allocated == metrics["peak_bytes"] + workspace + metrics["rounding_bytes"]
        assert reserved == allocated + metrics["slack_bytes"]
        assert metrics["rounding_bytes"] >= 0
        assert metrics["slack_bytes"] >= 0


@pytest.mark.parametrize("method", ["full", "qlora", "galore", "rsvd", "full_adamw_8bit"])
def test_it_agrees_with_what_is_kept_between_steps(method: str) -> None:
    kept = predict(ledger_request("tiny", method, "memory"))
    result = ledger(ledger_request("tiny", method, measured=False))
    metrics = result["metrics"]
    assert metrics["weights_bytes"] == kept["weights_bytes"]
    assert metrics["quantization_bytes"] == kept["quantization_bytes"]
    # The peak is in the second step, when the state is there.
    assert metrics["peak_phase"] in ("forward", "backward", "update")

    state = sum(row["state_bytes"] for row in result["state"])
    assert metrics["optimizer_state_bytes"] + metrics["projection_bytes"] == state
    counters = 0
    if method in ("full", "qlora"):
        # torch's AdamW counts the steps of each tensor on the CPU, in 4 bytes.
        _, model, _ = adapted(ledger_request("tiny", method), "meta")
        counters = 4 * sum(param.requires_grad for param in model.parameters())
    assert kept["optimizer_state_bytes"] == state + counters


def test_the_first_update_makes_the_state() -> None:
    rows = ledger(ledger_request("tiny", "full", measured=False))["timeline"]
    before = [row for row in rows if row["phase"] in ("first_forward", "first_backward")]
    assert {row["optimizer_state_bytes"] for row in before} == {0}
    assert rows[-1]["optimizer_state_bytes"] > 0


def test_two_predictions_are_equal() -> None:
    request = ledger_request("tiny", "galore", measured=False)
    assert ledger(request) == ledger(request)


def test_an_unsupported_method_says_why() -> None:
    result = ledger(ledger_request("tiny", "prefix_tuning"))
    assert result["status"] == "unsupported"
    assert "keys and values" in result["reason"]


# Large models -----------------------------------------------------------------------------------


def test_a_model_too_large_is_refused_before_it_is_built() -> None:
    """Its embedding alone has 256 TB; from shapes it is predicted all the same."""
    request = ledger_request("tiny", "head_only", measured=False)
    architecture = {**request["model"]["architecture"], "vocab_size": 10**12}
    request["model"] = {**request["model"], "architecture": architecture}
    assert ledger(request)["metrics"]["weights_bytes"] > 256e12
    with pytest.raises(
        ValueError, match=r"config/models.yaml: distilbert with .* GiB that are free on cpu"
    ):
        ledger({**request, "measured": True})


LARGE = """
import sys
sys.path.insert(0, "tests")
from helpers.profiling import ledger_request
from rankwise.measure.memory.ledger import ledger

method = sys.argv[1]
weights = {} if method == "qlora" else {"override": {method: {"weights": "bf16"}}}
sizes = {"rank": 16, "batch_size": 16, "sequence_length_tokens": 1024, "checkpointing": True}
target = {"dataset": "wikitext2", "device": "cuda", "measured": False}
request = ledger_request("llama_2_7b", method, **sizes, **target, **weights)
print(ledger(request)["metrics"]["peak_bytes"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "qlora", "vlorp_published"])
def test_a_large_model_needs_no_large_machine(method: str) -> None:
    """Llama-2-7B, 16 x 1024 with activation checkpointing, within 2 GiB of host memory."""
    command = [sys.executable, "-c", LARGE, method]
    process = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert 10e9 < int(process.stdout.split()[-1]) < 90e9
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib < 2 * 2**20
