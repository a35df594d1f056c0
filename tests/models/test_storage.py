"""How the base is stored: error bounds of the codes, exact bytes, and training on top of them."""

import copy

import bitsandbytes as bnb
import pytest
import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.core.errors import Unsupported
from rankwise.core.schemas import check
from rankwise.measure.memory.persistent import memory, predict
from rankwise.methods.parts.base import adapt
from rankwise.models import build as models
from rankwise.models import quantized, storage
from rankwise.study.resolve import resolve_method

SCHEMA = ROOT / "src/rankwise/core/schema/methods.schema.yaml"
MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())
SMALL = ("nf4", "nf4_double", "int8")
DISTRIBUTIONS = ("normal", "uniform", "student", "mixed")
HALF_GAP = 0.1520  # half the widest gap of NF4's 16 levels, -1 to -0.6962
QLORA = {
    "module": "lora",
    "options": {"rank": 8, "targets": ["query", "value"]},
    "optimizer": {"module": "adamw"},
}


def entry(weights: str, module: str = "lora") -> dict:
    """A method's entry with weights stored like this."""
    options = QLORA["options"] if module == "lora" else {}
    return {**QLORA, "module": module, "options": options, "weights": weights}


def task(name: str) -> str:
    return "language_modelling" if name == "stories260k" else "classification"


def classes(name: str) -> int:
    return 2 if task(name) == "classification" else 0


def build(
    weights: str, name: str = "tiny", module: str = "lora", compute: torch.dtype = torch.float32
) -> tuple[object, nn.Module]:
    """(method, adapted model) of a small real model on the CPU."""
    torch.manual_seed(0)
    names = models.names(MODELS[name], task(name))
    base = models.from_shapes(MODELS[name], task(name), classes(name), "cpu")
    return adapt(entry(weights, module), storage.store(base, weights, names, compute), names)


def batch(name: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 90, (8, 12), generator=torch.Generator().manual_seed(1))
    labels = ids if name == "stories260k" else torch.arange(8) % 2
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def request(weights: str, name: str, module: str = "lora", measured: bool = False) -> dict:
    return {
        "model": MODELS[name],
        "method": entry(weights, module),
        "shapes": {"task": task(name), "classes": classes(name)},
        "measured": measured,
    }


def linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data = weight
    return layer


def matrix(distribution: str, rows: int = 96, columns: int = 160) -> torch.Tensor:
    torch.manual_seed(3)
    normal = torch.randn(rows, columns)
    return {
        "normal": normal,
        "uniform": torch.rand(rows, columns) - 0.5,
        "student": torch.distributions.StudentT(3.0).sample((rows, columns)),
        "mixed": normal * 10.0 ** torch.randint(-3, 3, (rows, 1)),
    }[distribution]


def blocks(weight: torch.Tensor) -> torch.Tensor:
    """The weight's blocks, one a row. All entries of a block share a scale."""
    return weight.reshape(-1, quantized.NF4_BLOCK)


def nf4(weight: torch.Tensor, double: bool) -> quantized.Nf4Linear:
    return quantized.Nf4Linear(linear(weight), double, torch.float32)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_nf4_errs_by_at_most_half_a_gap_times_the_maximum_of_the_block(distribution: str) -> None:
    weight = matrix(distribution)
    error = blocks(weight - nf4(weight, double=False).dense_weight()).abs()
    largest = blocks(weight).abs().amax(1, keepdim=True)
    assert (error <= HALF_GAP * largest).all()
    assert error.max() > 0


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_double_quantization_adds_the_error_of_the_scale(distribution: str) -> None:
    """|w - w'| <= 0.152 a' + |a' - a|, where a is the exact and a' the stored scale.

    The bound is relative to a', because a' has the error of its group of 256 scales.
    """
    weight = matrix(distribution)
    layer = nf4(weight, double=True)
    state = layer.weight.quant_state
    scales = bnb.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    stored = scales.unsqueeze(1)
    exact = blocks(weight).abs().amax(1, keepdim=True)
    error = blocks(weight - layer.dense_weight()).abs()
    bound = HALF_GAP * torch.maximum(stored.abs(), exact) + (stored - exact).abs()
    assert (error <= bound * (1 + 1e-6)).all()


def test_double_quantization_equals_that_of_bitsandbytes() -> None:
    weight = matrix("normal")
    layer = nf4(weight, double=True)
    codes, state = bnb.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    assert torch.equal(codes, layer.weight.data)
    assert torch.equal(bnb.functional.dequantize_4bit(codes, state), layer.dense_weight())


@pytest.mark.parametrize(
    "shape",
    [(96, 160), (64, 96), (128, 32), (10, 48), (5, 16), (64, 172), (10, 130), (768, 768)],
    ids=str,
)
def test_blocks_follow_the_rows(shape: tuple[int, int]) -> None:
    """An entry is its level times the scale of its block, on any processor and for any row length.

    Products agree too, forward and backward.
    """
    torch.manual_seed(3)
    layer = nf4(torch.randn(*shape), double=False)
    state = layer.weight.quant_state
    codes = layer.weight.data.flatten().long()
    codes_of_entries = torch.stack([codes >> 4, codes & 15], 1).flatten()  # two in a byte
    levels = state.code[codes_of_entries]
    scales = state.absmax.repeat_interleave(quantized.NF4_BLOCK)[: levels.numel()]
    dense = (levels * scales).reshape(shape)
    assert torch.equal(layer.dense_weight(), dense)

    x = torch.randn(4, shape[1], requires_grad=True)
    out = layer(x) - layer.bias
    out.sum().backward()
    rounding = {"rtol": 1e-5, "atol": 1e-4}  # of sums of up to 768 terms
    torch.testing.assert_close(out, x @ dense.T, **rounding)
    torch.testing.assert_close(x.grad, dense.sum(0).expand_as(x), **rounding)


@pytest.mark.parametrize("double", [False, True])
def test_quantizing_again_gives_the_same_codes(double: bool) -> None:
    once = nf4(matrix("normal"), double)
    twice = nf4(once.dense_weight(), double)
    assert torch.equal(once.weight.data, twice.weight.data)


def test_int8_errs_by_at_most_half_a_step_of_its_row() -> None:
    weight = matrix("mixed")
    error = (weight - quantized.Int8Linear(linear(weight), torch.float32).dense_weight()).abs()
    half_step = weight.abs().amax(1, keepdim=True) / 254
    rounding = 2**-11 * weight.abs()  # bitsandbytes rounds to fp16 before it quantizes
    assert (error <= 1.001 * (half_step + rounding)).all()


@pytest.mark.parametrize(("weights", "bits", "tables"), [
    ("nf4", 4 + 32 / 64, 64), ("nf4_double", 4 + 8 / 64 + 32 / (64 * 256), 64 + 1024 + 4), ("int8", 8 + 32 / 768, 0),
])  # fmt: skip
def test_a_matrix_takes_its_bits_a_weight_and_its_tables(
    weights: str, bits: float, tables: int
) -> None:
    """A (768, 768) of DistilBERT. `tables`: bytes of the levels of the codes and the mean scale."""
    holder = nn.Sequential(nn.Linear(768, 768, device="meta"))
    storage.store(holder, weights, {"head": []})
    tensors = [holder[0].weight, *storage.constants(holder)]
    assert sum(t.numel() * t.element_size() for t in tensors) == 768 * 768 * bits / 8 + tables


@pytest.mark.parametrize("weights", storage.KINDS)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_measured_bytes_equal_the_predicted_ones(name: str, weights: str) -> None:
    metrics = memory(request(weights, name, measured=True))["metrics"]
    for part in ("weights_bytes", "quantization_bytes", "optimizer_state_bytes"):
        assert metrics[f"measured_{part}"] == metrics[part]
    assert (metrics["quantization_bytes"] > 0) == (weights in SMALL)


def test_a_wrong_prediction_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_constants(model: nn.Module) -> list[nn.Parameter]:
        return [p for p in model.parameters() if p.is_meta]

    monkeypatch.setattr(storage, "constants", wrong_constants)
    with pytest.raises(ArithmeticError, match="quantization_bytes: predicted"):
        memory(request("nf4", "tiny", measured=True))


@pytest.mark.parametrize("weights", ["fp32", "nf4_double", "int8"])
def test_parameters_are_counted_as_weights_and_not_as_bytes(weights: str) -> None:
    """Systems B and C: DistilBERT, query and value, rank 8. C's QLoRA counts packed bytes."""
    metrics = predict(request(weights, "distilbert"))
    assert metrics["trainable_parameters"] == 739_586
    assert metrics["total_parameters"] == 67_694_596


def test_qlora_takes_the_published_bytes() -> None:
    """System B's QLoRA: 133.88 MiB with BERT's buffers, its quantization constants not counted."""
    request_of_b = request("nf4_double", "bert_base")
    request_of_b["method"] = copy.deepcopy(request_of_b["method"])
    request_of_b["method"]["options"]["targets"] = ["query", "key", "value"]
    buffer_bytes = 2 * 512 * 8  # two buffers of 512 int64
    total_bytes = predict(request_of_b)["weights_bytes"] + buffer_bytes
    assert round(total_bytes / 2**20, 2) == 133.88


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_the_base_is_frozen_codes_and_the_rest_is_fp32(name: str, weights: str) -> None:
    _, model = build(weights, name)
    params = dict(model.named_parameters())
    packed = {n: p for n, p in params.items() if p.dtype in (torch.uint8, torch.int8)}
    matrix_count = {"tiny": 2 * 6, "stories260k": 5 * 7}[name]
    assert len(packed) == len(list(quantized.quantized(model))) == matrix_count
    for head in MODELS[name]["head"][task(name)]:
        assert not any(head in n for n in packed)
    assert {p.dtype for n, p in params.items() if n not in packed} == {torch.float32}
    assert not any(p.requires_grad for p in packed.values())
    assert not model.base_model.is_gradient_checkpointing


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_untrained_lora_has_the_logits_of_its_stored_base(name: str, weights: str) -> None:
    _, adapted = build(weights, name)
    _, base = build(weights, name, "frozen")
    _, dense = build("fp32", name, "frozen")
    inputs = batch(name)
    logits = adapted.eval()(**inputs).logits
    assert torch.equal(logits, base.eval()(**inputs).logits)
    assert not torch.allclose(logits, dense.eval()(**inputs).logits, atol=1e-6)


@pytest.mark.parametrize("weights", ["nf4", "nf4_double"])
def test_four_bits_evaluate_as_they_train(weights: str) -> None:
    """Also after an evaluation.

    On some processors, evaluating makes the layers of bitsandbytes repack their weights for bf16.
    """
    _, model = build(weights)
    inputs = batch("tiny")
    before = model.train()(**inputs).logits
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, before)
    assert torch.equal(model.train()(**inputs).logits, before)


@pytest.mark.parametrize("weights", SMALL)
def test_storage_does_not_change_the_initial_weights(weights: str) -> None:
    """Head and adapters start as with fp32 weights, so that studies compare storage alone."""
    start = dict(build("fp32")[1].named_parameters())
    trainable = {n: p for n, p in build(weights)[1].named_parameters() if p.requires_grad}
    assert trainable
    assert all(torch.equal(p, start[n]) for n, p in trainable.items())


def train(
    model: nn.Module, name: str, steps: int = 6, precision: torch.dtype = torch.float32
) -> list[float]:
    """Train. Return the loss of each step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = model.train()(**batch(name)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("weights", [*SMALL, "bf16"])
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_training_reduces_the_loss_and_does_not_change_the_base(name: str, weights: str) -> None:
    _, model = build(weights, name)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    losses = train(model, name)
    assert losses[-1] < losses[0] - 0.03
    after = dict(model.named_parameters())
    assert all(torch.equal(value, after[n]) for n, value in before.items())


@pytest.mark.parametrize("weights", [*SMALL, "bf16"])
def test_two_runs_are_equal_to_the_bit(weights: str) -> None:
    assert train(build(weights)[1], "tiny") == train(build(weights)[1], "tiny")


@pytest.mark.parametrize(("name", "head"), [("tiny", ("classifier",)), ("stories260k", ())])
def test_bf16_is_for_the_base_and_not_for_adapters_and_head(
    name: str, head: tuple[str, ...]
) -> None:
    _, model = build("bf16", name)
    for n, param in model.named_parameters():
        is_new = any(part in n for part in ("lora_", *head))
        assert param.dtype == (torch.float32 if is_new else torch.bfloat16), n
    assert all(buffer.dtype != torch.bfloat16 for buffer in model.buffers())


def test_full_fine_tuning_in_bf16_trains_bf16() -> None:
    _, model = build("bf16", "stories260k", "full")
    before = copy.deepcopy(model)
    losses = train(model, "stories260k")
    assert losses[-1] < losses[0]
    for old, new in zip(before.parameters(), model.parameters(), strict=True):
        assert not torch.equal(old, new)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("weights", SMALL)
def test_bf16_arithmetic_leaves_the_biases_fp32(weights: str) -> None:
    """The layers of bitsandbytes cast biases in place. That changes a frozen parameter's bytes."""
    _, model = build(weights, compute=torch.bfloat16)
    losses = train(model, "tiny", precision=torch.bfloat16)
    assert losses[-1] < losses[0] - 0.03
    codes = torch.int8 if weights == "int8" else torch.uint8
    assert {p.dtype for p in model.parameters()} == {torch.float32, codes}


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_merging_dequantizes_first(name: str, weights: str) -> None:
    """Quantizing the sum again would err by a step of the codes.

    Both models are compared in training mode, where int8 does not quantize the inputs.
    """
    method, model = build(weights, name)
    train(model, name)
    expected = model.train()(**batch(name)).logits
    merged = method.merge(model).train()
    assert {type(m) for m in merged.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert not storage.constants(merged)
    assert torch.allclose(merged(**batch(name)).logits, expected, atol=1e-5)


@pytest.mark.parametrize("weights", SMALL)
def test_dequantized_layers_have_the_values_of_the_codes(weights: str) -> None:
    _, model = build(weights, module="frozen")
    expected = model.train()(**batch("tiny")).logits
    dense = storage.dequantize(model)
    assert not list(quantized.quantized(dense))
    assert torch.allclose(dense(**batch("tiny")).logits, expected, atol=1e-6)


def resolved(module: str, **keys: str) -> dict:
    """A method's entry as a study resolves it."""
    methods = check({"x": {"module": module, "learning_rate": 1.0e-4, **keys}}, SCHEMA, "methods")
    return resolve_method("x", methods["x"], MODELS["tiny"], 0, "study: train.0")


@pytest.mark.parametrize("weights", SMALL)
def test_methods_that_need_dense_weights_say_so(weights: str) -> None:
    reason = f"full trains or reads dense matrices, which weights {weights} are not"
    with pytest.raises(Unsupported, match=reason):
        build(weights, module="full")
    message = f"x.weights: got '{weights}', allowed: fp32 or bf16 under full"
    with pytest.raises(ConfigError, match=message):
        resolved("full", weights=weights)
    assert resolved("full", weights="bf16")["weights"] == "bf16"
    assert resolved("head_only", weights=weights)["weights"] == weights


def test_a_model_without_linear_layers_cannot_be_quantized() -> None:
    assert memory(request("nf4", "gpt2")) == {
        "status": "unsupported",
        "reason": "weights nf4: GPT2ForSequenceClassification has no linear layers to quantize",
    }


def test_weights_are_fp32_by_default() -> None:
    assert resolved("full")["weights"] == "fp32"
    with pytest.raises(ConfigError, match=r"got 'nf5', allowed: bf16, fp32, int8, nf4, nf4_double"):
        resolved("full", weights="nf5")


def test_an_unknown_kind_of_storage_is_refused() -> None:
    message = "weights: got 'fp8', allowed: fp32, bf16, nf4, nf4_double, int8"
    with pytest.raises(ValueError, match=message):
        storage.store(nn.Linear(4, 4), "fp8", {"head": []})
