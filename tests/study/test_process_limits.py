"""What several processes can train is known before a job is planned."""

import pytest

from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.execution import job_memory
from rankwise.execution.gpu_needs import gpu_need
from rankwise.study.plan import Plan


def study(method: str, override: dict | None = None, **schedule: object) -> dict:
    return {
        "name": "several",
        "question": "Do several processes train it?",
        "device": "cpu",
        "schedule": {"max_gradient_norm": None, "updates": 4, **schedule},
        "model": "tiny",
        "data": "generated_reviews",
        "train": [{"methods": [method], "seeds": [0], "override": override or {}}],
    }


def refusal(method: str, override: dict | None = None, **schedule: object) -> str:
    with pytest.raises(ConfigError) as refused:
        Plan(study(method, override, **schedule), ROOT, "config/several.yaml")
    return str(refused.value)


def test_the_processes_divide_the_batch() -> None:
    assert refusal("lora", processes=4, batch_size=30) == (
        "config/several.yaml: train.0.schedule.processes: got 4, allowed: a number that batch_size 30 "
        "is a multiple of; or make batch_size 28 or 32, since it is that of all processes together"
    )


@pytest.mark.parametrize(
    ("method", "override", "reason"),
    [
        ("rsvd", {}, "the optimizer projected_adam does not declare SHARDED"),
        ("mezo", {}, "the optimizer mezo does not declare SHARDED"),
        ("badam", {}, "the optimizer badam does not declare SHARDED"),
        ("weight_reduction", {}, "the method weight_reduction does not declare SHARDED"),
        ("lora", {"lora": {"weights": "nf4"}}, "weights nf4 are stored in blocks"),
        ("full_released", {}, "with release, gradients are used before they are shared"),
    ],
)
def test_what_cannot_be_sharded_is_refused_with_a_reason(
    method: str, override: dict, reason: str
) -> None:
    sentence = refusal(method, override, processes=2, sharding="fsdp2")
    assert sentence.startswith("config/several.yaml: train.0.schedule.sharding: got 'fsdp2', ")
    assert f"allowed: ddp with {method}, because {reason}" in sentence


def test_one_process_has_nothing_to_share() -> None:
    assert "allowed: ddp with processes: 1" in refusal("full", sharding="fsdp2")


@pytest.mark.parametrize("method", ["full", "lora", "head_only", "bitfit"])
def test_what_can_be_sharded_is_planned(method: str) -> None:
    sharded = {**study(method, processes=2, sharding="fsdp2"), "keep": "none"}
    plan = Plan(sharded, ROOT, "config/several.yaml")
    (cell,) = plan.cells("train")
    assert plan.request("train", cell)["schedule"]["sharding"] == "fsdp2"


def test_weights_in_shares_are_not_kept() -> None:
    sentence = refusal("lora", processes=2, sharding="fsdp2")
    assert "keep: adapter needs whole weights; with keep: none, fsdp2 is possible" in sentence


def test_a_job_asks_for_all_of_its_processes() -> None:
    plans = [Plan(study("full", processes=count), ROOT, "config/several.yaml") for count in (1, 4)]
    (cell,) = plans[0].cells("train")
    assert [plan.processes("train", cell) for plan in plans] == [1, 4]
    one, four = (job_memory.training_mib(plan, cell) for plan in plans)
    assert four == 4 * one
    shared = {**plans[1].study, "share": True}
    predicted = {"peak_bytes": 2**30}
    assert gpu_need(shared, "train", True, predicted, local=True, processes=4) == (4, 0.0)
    assert gpu_need(shared, "train", True, predicted, local=True, processes=1)[0] == 0


def test_a_profile_of_several_processes_is_a_prediction() -> None:
    grid = {"methods": ["full"], "processes": 2, "measurements": ["ledger", "flops"]}
    content = {**study("full"), "train": [], "profile": [grid]}
    with pytest.raises(ConfigError, match=r"profile\.0\.processes: got 2, allowed: 1, or a grid "):
        Plan(content, ROOT, "config/several.yaml")


def test_zero_is_predicted_and_not_trained() -> None:
    assert refusal("full", processes=2, sharding="zero2") == (
        "config/several.yaml: train.0.schedule.sharding: got 'zero2', allowed: ddp or fsdp2, with "
        "which training runs; FSDP1 and ZeRO are predicted: write them in a grid of `profile` with "
        "measurements: [ledger] and measured: false"
    )


@pytest.mark.parametrize("sharding", ["fsdp2", "zero2"])
def test_a_profile_predicts_shares_of_what_is_made_for_it(sharding: str) -> None:
    """Weights in 4 bits are shared by other programs than ours, a projection of rows by none."""
    several = {"processes": 2, "sharding": sharding, "measurements": ["ledger"], "measured": False}
    grid = {"methods": ["lora"], "override": {"lora": {"weights": "nf4"}}, **several}
    content = {**study("full"), "train": [], "profile": [grid]}
    assert len(Plan(content, ROOT, "config/several.yaml").cells("ledger")) == 1
    content["profile"] = [{**grid, "methods": ["rsvd"], "override": {}}]
    with pytest.raises(ConfigError, match=r"profile\.0\.sharding: got .* does not declare SHARDED"):
        Plan(content, ROOT, "config/several.yaml")
