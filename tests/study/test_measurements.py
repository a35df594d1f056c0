"""Profiles from shapes against published bytes and closed forms. Exact, or wrong."""

import pytest
import torch

from helpers.repository import ROOT
from rankwise.measure.memory.persistent import memory, predict
from rankwise.methods.parts.base import adapt
from rankwise.models import build
from rankwise.study.plan import Cell, Plan

MODELS = (
    "distilbert",
    "bert_base",
    "gpt2",
    "llama_3_2_1b",
    "llama_2_7b",
    "minilm",
    "stories260k",
    "tiny",
)
# Published system A (its optimizer_memory_comparison.csv): bytes of optimizer state on DistilBERT.
SYSTEM_A_BYTES = {4: 3060664, 8: 5625688, 16: 10747544, 64: 41495064, 128: 82494488}
ADAMW_BYTES = 535640496


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
    assert (
        predict(request(profiles, "memory", "rsvd", rank))["optimizer_state_bytes"]
        == SYSTEM_A_BYTES[rank]
    )


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
def test_trainable_parameters_are_the_published_ones(
    profiles: Plan, method: str, rank: int, trainable: int
) -> None:
    found = predict(request(profiles, "memory", method, rank))
    assert found["trainable_parameters"] == trainable
    assert found["gradients_bytes"] == 4 * trainable


@pytest.mark.parametrize("name", MODELS)
def test_the_entry_tells_the_truth_about_the_model(name: str, plan: Plan) -> None:
    entry = plan.library["models"][name]
    for task, head in entry["head"].items():
        model = build.from_shapes(entry, task, classes=2 if task == "classification" else 0)
        assert set(head) <= {n.rpartition(".")[2] for n, _ in model.named_modules()}
        weights = [
            (f".{n}", m.weight)
            for n, m in model.named_modules()
            if isinstance(getattr(m, "weight", None), torch.Tensor)
        ]
        names = sorted(
            (module["name"] for module in entry["modules"].values()), key=len, reverse=True
        )
        for role, module in entry["modules"].items():
            longest = (
                (next((name for name in names if n.endswith(f".{name}")), None), weight)
                for n, weight in weights
            )
            assert {tuple(weight.shape) for name, weight in longest if name == module["name"]} == {
                tuple(module["shape"])
            }, role
        assert model.config.max_position_embeddings == entry["max_positions_tokens"]
        assert model.config.hidden_size == entry["hidden_size"]


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
        model = build.from_shapes(found["model"], "classification", 2)
        adapted = adapt(found["method"], model, build.names(found["model"], "classification"))[1]
    assert all(p.is_meta for p in adapted.parameters())
