"""How the base is stored: error bounds of the codes, bytes to the last one, and what trains on top of them."""

import copy

import bitsandbytes as bnb
import pytest
import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.core.config import ConfigError, check
from rankwise.core.errors import Unsupported
from rankwise.measure.memory.persistent import memory, predict
from rankwise.methods.parts.base import adapt
from rankwise.models import build as models
from rankwise.models import quantized, storage
from rankwise.study.resolve import resolve_method

SCHEMA = ROOT / "src/rankwise/core/schema/methods.schema.yaml"
MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())
SMALL = ("nf4", "nf4_double", "int8")
HALF_GAP = 0.1520  # half the widest gap of the 16 levels, -1 to -0.6962
QLORA = {
    "module": "lora",
    "options": {"rank": 8, "targets": ["query", "value"]},
    "optimizer": {"module": "adamw"},
}


def entry(weights: str, module: str = "lora") -> dict:
    return {
        **QLORA,
        "module": module,
        "options": QLORA["options"] if module == "lora" else {},
        "weights": weights,
    }


def build(
    weights: str, name: str = "tiny", module: str = "lora", compute: torch.dtype = torch.float32
):
    """(method, adapted model) of a small real model on the CPU."""
    torch.manual_seed(0)
    names = models.names(MODELS[name], task(name))
    base = models.from_shapes(
        MODELS[name], task(name), 2 if task(name) == "classification" else 0, "cpu"
    )
    return adapt(entry(weights, module), storage.store(base, weights, names, compute), names)


def task(name: str) -> str:
    return "language_modelling" if name == "stories260k" else "classification"


def batch(name: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 90, (8, 12), generator=torch.Generator().manual_seed(1))
    labels = ids if name == "stories260k" else torch.arange(8) % 2
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def request(weights: str, name: str, module: str = "lora", measured: bool = False) -> dict:
    shapes = {"task": task(name), "classes": 2 if task(name) == "classification" else 0}
    return {
        "model": MODELS[name],
        "method": entry(weights, module),
        "shapes": shapes,
        "measured": measured,
    }


def linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data = weight
    return layer


def matrix(kind: str, rows: int = 96, columns: int = 160) -> torch.Tensor:
    torch.manual_seed(3)
    normal = torch.randn(rows, columns)
    return {
        "normal": normal,
        "uniform": torch.rand(rows, columns) - 0.5,
        "student": torch.distributions.StudentT(3.0).sample((rows, columns)),
        "mixed": normal * 10.0 ** torch.randint(-3, 3, (rows, 1)),
    }[kind]


def blocks(weight: torch.Tensor) -> torch.Tensor:
    return weight.reshape(-1, quantized.NF4_BLOCK)


@pytest.mark.parametrize("kind", ["normal", "uniform", "student", "mixed"])
def test_nf4_is_within_half_a_gap_of_its_blocks_maximum(kind: str) -> None:
    weight = matrix(kind)
    error = blocks(
        weight - quantized.Nf4Linear(linear(weight), False, torch.float32).dense_weight()
    ).abs()
    assert (error <= HALF_GAP * blocks(weight).abs().amax(1, keepdim=True)).all()
    assert error.max() > 0


@pytest.mark.parametrize("kind", ["normal", "uniform", "student", "mixed"])
def test_double_quantization_adds_the_error_of_the_scale(kind: str) -> None:
    """|w - w^| <= .152 a^ + |a^ - a|: relative to the stored scale a^, for a^ has the error of its group of 256."""
    weight = matrix(kind)
    layer = quantized.Nf4Linear(linear(weight), True, torch.float32)
    state = layer.weight.quant_state
    stored = (
        bnb.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    ).unsqueeze(1)
    exact = blocks(weight).abs().amax(1, keepdim=True)
    error = blocks(weight - layer.dense_weight()).abs()
    bound = HALF_GAP * torch.maximum(stored.abs(), exact) + (stored - exact).abs()
    assert (error <= bound * (1 + 1e-6)).all()


def test_double_quantization_is_bitsandbytes() -> None:
    weight = matrix("normal")
    layer = quantized.Nf4Linear(linear(weight), True, torch.float32)
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
def test_blocks_run_through_the_rows(shape: tuple[int, int]) -> None:
    """Level times the scale of its block, whatever processor this is and however long a row; in a product too, both ways."""
    torch.manual_seed(3)
    layer = quantized.Nf4Linear(linear(torch.randn(*shape)), False, torch.float32)
    state, codes = layer.weight.quant_state, layer.weight.data.flatten().long()
    levels = state.code[torch.stack([codes >> 4, codes & 15], 1).flatten()]
    dense = (
        levels * state.absmax.repeat_interleave(quantized.NF4_BLOCK)[: levels.numel()]
    ).reshape(shape)
    assert torch.equal(layer.dense_weight(), dense)
    x = torch.randn(4, shape[1], requires_grad=True)
    out = layer(x) - layer.bias
    out.sum().backward()
    rounding = {"rtol": 1e-5, "atol": 1e-4}  # of sums of 768
    torch.testing.assert_close(out, x @ dense.T, **rounding)
    torch.testing.assert_close(x.grad, dense.sum(0).expand_as(x), **rounding)


@pytest.mark.parametrize("double", [False, True])
def test_quantizing_again_gives_the_same_codes(double: bool) -> None:
    once = quantized.Nf4Linear(linear(matrix("normal")), double, torch.float32)
    twice = quantized.Nf4Linear(linear(once.dense_weight()), double, torch.float32)
    assert torch.equal(once.weight.data, twice.weight.data)


def test_int8_is_within_half_a_step_of_its_row() -> None:
    weight = matrix("mixed")
    error = (weight - quantized.Int8Linear(linear(weight), torch.float32).dense_weight()).abs()
    rounding = 2**-11 * weight.abs()  # bitsandbytes quantizes what fp16 holds
    assert (error <= 1.001 * (weight.abs().amax(1, keepdim=True) / 254 + rounding)).all()


@pytest.mark.parametrize(("weights", "bits", "tables"), [
    ("nf4", 4 + 32 / 64, 64), ("nf4_double", 4 + 8 / 64 + 32 / (64 * 256), 64 + 1024 + 4), ("int8", 8 + 32 / 768, 0),
])  # fmt: skip
def test_a_matrix_keeps_its_bits_a_weight_and_its_tables(
    weights: str, bits: float, tables: int
) -> None:
    """DistilBERT's (768, 768); `tables` are the levels of the codes, and the mean of the scales."""
    holder = nn.Sequential(nn.Linear(768, 768, device="meta"))
    storage.store(holder, weights, {"head": []})
    kept = [holder[0].weight, *storage.constants(holder)]
    assert sum(t.numel() * t.element_size() for t in kept) == 768 * 768 * bits / 8 + tables


@pytest.mark.parametrize("weights", storage.KINDS)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_measured_bytes_are_the_predicted_ones(name: str, weights: str) -> None:
    found = memory(request(weights, name, measured=True))["metrics"]
    for part in ("weights_bytes", "quantization_bytes", "optimizer_state_bytes"):
        assert found[f"measured_{part}"] == found[part]
    assert (found["quantization_bytes"] > 0) == (weights in SMALL)


def test_a_wrong_prediction_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        storage, "constants", lambda model: [p for p in model.parameters() if p.is_meta]
    )
    with pytest.raises(ArithmeticError, match="quantization_bytes: predicted"):
        memory(request("nf4", "tiny", measured=True))


@pytest.mark.parametrize("weights", ["fp32", "nf4_double", "int8"])
def test_parameters_are_weights_and_not_bytes(weights: str) -> None:
    """DistilBERT, q and v, r 8: published systems B and C; the packed half bytes of C's QLoRA are no parameters."""
    found = predict(request(weights, "distilbert"))
    assert found["trainable_parameters"] == 739_586
    assert found["total_parameters"] == 67_694_596


def test_qlora_holds_the_published_bytes() -> None:
    """System B's QLoRA: 133.88 MiB with BERT's buffers (2 x 512 int64), its constants not counted."""
    asked = request("nf4_double", "bert_base")
    asked["method"] = copy.deepcopy(asked["method"])
    asked["method"]["options"]["targets"] = ["query", "key", "value"]
    assert round((predict(asked)["weights_bytes"] + 2 * 512 * 8) / 2**20, 2) == 133.88


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_the_base_is_frozen_codes_and_the_rest_is_fp32(name: str, weights: str) -> None:
    _, model = build(weights, name)
    packed = {n for n, p in model.named_parameters() if p.dtype in (torch.uint8, torch.int8)}
    assert (
        len(packed)
        == len(list(quantized.quantized(model)))
        == {"tiny": 2 * 6, "stories260k": 5 * 7}[name]
    )
    assert not any(head in n for n in packed for head in MODELS[name]["head"][task(name)])
    rest = {n: p for n, p in model.named_parameters() if n not in packed}
    assert {p.dtype for p in rest.values()} == {torch.float32}
    assert not any(p.requires_grad for n, p in model.named_parameters() if n in packed)
    assert not model.base_model.is_gradient_checkpointing


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_untrained_lora_answers_as_its_stored_base(name: str, weights: str) -> None:
    _, adapted = build(weights, name)
    _, base = build(weights, name, "frozen")
    _, dense = build("fp32", name, "frozen")
    inputs = batch(name)
    found = adapted.eval()(**inputs).logits
    assert torch.equal(found, base.eval()(**inputs).logits)
    assert not torch.allclose(found, dense.eval()(**inputs).logits, atol=1e-6)


@pytest.mark.parametrize("weights", ["nf4", "nf4_double"])
def test_four_bits_evaluate_as_they_train(weights: str) -> None:
    """Also after an evaluation: bitsandbytes' own layer repacks its weights for bf16 there on some processors."""
    _, model = build(weights)
    inputs = batch("tiny")
    before = model.train()(**inputs).logits
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, before)
    assert torch.equal(model.train()(**inputs).logits, before)


@pytest.mark.parametrize("weights", SMALL)
def test_storage_changes_no_draw(weights: str) -> None:
    """Head and adapters start as with fp32 weights, so that the comparison is of storage alone."""
    start = dict(build("fp32")[1].named_parameters())
    stored = {n: p for n, p in build(weights)[1].named_parameters() if p.requires_grad}
    assert stored
    assert all(torch.equal(p, start[n]) for n, p in stored.items())


def losses(
    model: nn.Module, name: str, steps: int = 6, precision: torch.dtype = torch.float32
) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    found = []
    for _ in range(steps):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = model.train()(**batch(name)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("weights", [*SMALL, "bf16"])
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_it_learns_and_the_base_does_not_move(name: str, weights: str) -> None:
    _, model = build(weights, name)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    found = losses(model, name)
    assert found[-1] < found[0] - 0.03
    after = dict(model.named_parameters())
    assert all(torch.equal(value, after[n]) for n, value in before.items())


@pytest.mark.parametrize("weights", [*SMALL, "bf16"])
def test_two_runs_are_equal_to_the_bit(weights: str) -> None:
    assert losses(build(weights)[1], "tiny") == losses(build(weights)[1], "tiny")


def test_bf16_is_the_bases_and_not_the_adapters() -> None:
    for name, head in (("tiny", ("classifier",)), ("stories260k", ())):
        _, model = build("bf16", name)
        for n, p in model.named_parameters():
            assert p.dtype == (
                torch.float32 if "lora_" in n or any(h in n for h in head) else torch.bfloat16
            ), n
        assert all(b.dtype != torch.bfloat16 for b in model.buffers())


def test_full_fine_tuning_in_bf16_trains_bf16() -> None:
    _, model = build("bf16", "stories260k", "full")
    before = copy.deepcopy(model)
    found = losses(model, "stories260k")
    assert found[-1] < found[0]
    moved = [
        not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)
    ]
    assert all(moved)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("weights", SMALL)
def test_bf16_arithmetic_leaves_the_biases_fp32(weights: str) -> None:
    """bitsandbytes' own layers cast them in place, which changes a frozen parameter and its bytes."""
    _, model = build(weights, compute=torch.bfloat16)
    found = losses(model, "tiny", precision=torch.bfloat16)
    assert found[-1] < found[0] - 0.03
    assert {p.dtype for p in model.parameters()} == {
        torch.float32,
        torch.int8 if weights == "int8" else torch.uint8,
    }


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_merging_dequantizes_first(name: str, weights: str) -> None:
    """Compared in training, where int8 quantizes no inputs; requantizing the sum would err by a code's step."""
    method, model = build(weights, name)
    losses(model, name)
    answer = model.train()(**batch(name)).logits
    merged = method.merge(model).train()
    assert {type(m) for m in merged.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert not storage.constants(merged)
    assert torch.allclose(merged(**batch(name)).logits, answer, atol=1e-5)


@pytest.mark.parametrize("weights", SMALL)
def test_dequantized_layers_are_the_codes_values(weights: str) -> None:
    _, model = build(weights, module="frozen")
    answer = model.train()(**batch("tiny")).logits
    dense = storage.dequantize(model)
    assert not list(quantized.quantized(dense))
    assert torch.allclose(dense(**batch("tiny")).logits, answer, atol=1e-6)


def resolved(module: str, **keys: str) -> dict:
    methods = check({"x": {"module": module, "learning_rate": 1.0e-4, **keys}}, SCHEMA, "methods")
    return resolve_method("x", methods["x"], MODELS["tiny"], 0, "study: train.0")


@pytest.mark.parametrize("weights", SMALL)
def test_what_needs_dense_weights_says_so(weights: str) -> None:
    with pytest.raises(
        Unsupported, match=f"full trains or reads dense matrices, which weights {weights} are not"
    ):
        build(weights, module="full")
    with pytest.raises(
        ConfigError, match=f"x.weights: got '{weights}', allowed: fp32 or bf16 under full"
    ):
        resolved("full", weights=weights)
    assert resolved("full", weights="bf16")["weights"] == "bf16"
    assert resolved("head_only", weights=weights)["weights"] == weights


def test_a_model_without_linear_layers_cannot_be_quantized() -> None:
    assert memory(request("nf4", "gpt2")) == {
        "status": "unsupported",
        "reason": "weights nf4: GPT2ForSequenceClassification has no linear layers to quantize",
    }


def test_weights_are_fp32_unless_said() -> None:
    assert resolved("full")["weights"] == "fp32"
    with pytest.raises(ConfigError, match=r"got 'nf5', allowed: bf16, fp32, int8, nf4, nf4_double"):
        resolved("full", weights="nf5")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(
        ValueError, match="weights: got 'fp8', allowed: fp32, bf16, nf4, nf4_double, int8"
    ):
        storage.store(nn.Linear(4, 4), "fp8", {"head": []})
