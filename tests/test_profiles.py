"""Profiles from shapes against published bytes and closed forms. Exact, or wrong."""

import pytest
import torch
from conftest import ROOT

from rankwise import models
from rankwise.measure.flops import flops
from rankwise.measure.memory import memory, predict
from rankwise.method import adapt
from rankwise.plan import Cell, Plan

MODELS = ("distilbert", "bert_base", "gpt2", "llama_3_2_1b", "llama_2_7b", "minilm", "stories260k", "tiny")
# Published system A (its optimizer_memory_comparison.csv): bytes of optimizer state on DistilBERT.
SYSTEM_A_BYTES = {4: 3060664, 8: 5625688, 16: 10747544, 64: 41495064, 128: 82494488}
ADAMW_BYTES = 535640496
# DistilBERT, batch 32 x 128: tokens, width, inner width, layers.
T, D, H, LAYERS = 32 * 128, 768, 3072, 6
DENSE = 2 * T * LAYERS * (4 * D * D + 2 * D * H) + 2 * 32 * (D * D + 2 * D)
ATTENTION = LAYERS * 2 * 2 * 32 * 128 * 128 * D


@pytest.fixture(scope="module")
def profiles() -> Plan:
    grid = {
        "models": ["distilbert"],
        "datasets": ["sst2"],
        "methods": ["full", "head_only", "lora", "lora_qkv", "rsvd", "frozen"],
    }
    study = {
        "name": "t",
        "question": "?",
        "device": "cpu",
        "profile": [{**grid, "ranks": [4, 8, 16, 64, 128], "measured": False}],
    }
    return Plan(study, ROOT)


def request(plan: Plan, measurement: str, method: str, rank: int) -> dict:
    return plan.request(measurement, Cell("distilbert", "sst2", method, rank))


@pytest.mark.parametrize("rank", SYSTEM_A_BYTES)
def test_rsvd_keeps_the_published_bytes(profiles: Plan, rank: int) -> None:
    assert predict(request(profiles, "memory", "rsvd", rank))["optimizer_state_bytes"] == SYSTEM_A_BYTES[rank]


def test_full_adamw_keeps_the_published_bytes(profiles: Plan) -> None:
    assert predict(request(profiles, "memory", "full", 0))["optimizer_state_bytes"] == ADAMW_BYTES


@pytest.mark.parametrize(("method", "rank"), [("rsvd", 8), ("full", 0), ("lora", 8)])
def test_a_real_step_keeps_what_was_predicted(profiles: Plan, method: str, rank: int) -> None:
    found = memory({**request(profiles, "memory", method, rank), "measured": True})["metrics"]
    assert found["measured_optimizer_state_bytes"] == found["optimizer_state_bytes"]


@pytest.mark.parametrize(("method", "rank", "trainable"), [
    ("lora", 8, 739_586), ("lora", 4, 665_858), ("lora", 16, 887_042), ("full", 0, 66_955_010), ("head_only", 0, 592_130),
    ("lora_qkv", 4, 702_722), ("lora_qkv", 8, 813_314), ("lora_qkv", 16, 1_034_498), ("lora_qkv", 64, 2_361_602),
    ("lora_qkv", 128, 4_131_074), ("frozen", 0, 0),
])  # fmt: skip
def test_trainable_parameters_are_the_published_ones(profiles: Plan, method: str, rank: int, trainable: int) -> None:
    found = predict(request(profiles, "memory", method, rank))
    assert found["trainable_parameters"] == trainable
    assert found["gradients_bytes"] == 4 * trainable


@pytest.mark.parametrize("name", MODELS)
def test_the_entry_tells_the_truth_about_the_model(name: str, plan: Plan) -> None:
    entry = plan.library["models"][name]
    for task, head in entry["head"].items():
        model = models.from_shapes(entry, task, classes=2 if task == "classification" else 0)
        assert set(head) <= {n.rpartition(".")[2] for n, _ in model.named_modules()}
        weights = [
            (f".{n}", m.weight) for n, m in model.named_modules() if isinstance(getattr(m, "weight", None), torch.Tensor)
        ]
        names = sorted((module["name"] for module in entry["modules"].values()), key=len, reverse=True)
        for role, module in entry["modules"].items():
            longest = ((next((name for name in names if n.endswith(f".{name}")), None), weight) for n, weight in weights)
            assert {tuple(weight.shape) for name, weight in longest if name == module["name"]} == {tuple(module["shape"])}, role
        assert model.config.max_position_embeddings == entry["max_positions_tokens"]
        assert model.config.hidden_size == entry["hidden_size"]


def test_forward_and_backward_are_the_closed_form(profiles: Plan) -> None:
    found = flops(request(profiles, "flops", "full", 0))["metrics"]
    assert found["forward_flops"] == DENSE + ATTENTION
    assert found["backward_flops"] == 2 * found["forward_flops"]
    assert found["optimizer_flops"] == 0
    assert DENSE == 347_930_198_016  # system A's F


@pytest.mark.parametrize("rank", [16, 128])
def test_a_projected_step_is_two_products_a_matrix(profiles: Plan, rank: int) -> None:
    sides = [(30522, D), (512, D), *[(D, D)] * (LAYERS * 4 + 1), *[(H, D), (D, H)] * LAYERS, (2, D)]
    wanted = sum(4 * m * n * min(max(1, rank * min(m, n) // D), m, n) for m, n in sides)
    assert flops(request(profiles, "flops", "rsvd", rank))["metrics"]["optimizer_flops"] == wanted


@pytest.mark.parametrize("rank", [4, 64])
def test_lora_adds_its_products_and_saves_the_frozen_ones(profiles: Plan, rank: int) -> None:
    found = flops(request(profiles, "flops", "lora_qkv", rank))["metrics"]
    assert found["forward_flops"] == DENSE + ATTENTION + 18 * 2 * T * rank * 2 * D
    assert found["backward_flops"] < 2 * found["forward_flops"]


@pytest.mark.parametrize("name", ["distilbert", "bert_base", "gpt2", "llama_3_2_1b", "minilm", "stories260k", "tiny"])
def test_flops_of_every_model_and_task(name: str, plan: Plan) -> None:
    datasets = {"classification": "sst2", "language_modelling": "wikitext2", "masked_language_modelling": "generated_text"}
    for task in plan.library["models"][name]["head"]:
        grid = {
            "models": [name],
            "datasets": [datasets[task]],
            "methods": ["full"],
            "sequence_length_tokens": 16,
            "batch_size": 2,
        }
        study = {"name": "t", "question": "?", "device": "cpu", "profile": [grid]}
        every = Plan(study, ROOT)
        found = flops(every.request("flops", every.cells("flops")[0]))["metrics"]
        assert 1.9 * found["forward_flops"] < found["backward_flops"] <= 2 * found["forward_flops"]


def test_a_profile_is_of_shapes_alone(profiles: Plan) -> None:
    """New weights, data or learning rates rerun no profile."""
    found = request(profiles, "memory", "lora", 8)
    assert "weights" not in found["model"]
    assert "learning_rate" not in found["method"]
    assert "dataset" not in found
    assert found["environment"]["lock"] == "envs/cpu.lock"


def test_adapting_on_the_meta_device_allocates_nothing(profiles: Plan) -> None:
    found = request(profiles, "memory", "lora", 8)
    with torch.device("meta"):
        model = models.from_shapes(found["model"], "classification", 2)
        adapted = adapt(found["method"], model, models.names(found["model"], "classification"))[1]
    assert all(p.is_meta for p in adapted.parameters())
