"""What a training needs, predicted before it runs: its peak, its FLOPs, and what a scheduler is asked for."""

import json
from pathlib import Path

import pytest
import yaml

from helpers.repository import ROOT
from rankwise.core.config import library
from rankwise.execution import job_memory
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.ledger import ledger
from rankwise.measure.predict import predict
from rankwise.study.grids import Cell
from rankwise.study.plan import Plan

GRID = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora"],
    "ranks": [8],
}
LORA = Cell("tiny", "generated_reviews", "lora", 8)


def plan_of(**schedule: object) -> Plan:
    given = {
        "epochs": 4,
        "batch_size": 32,
        "eval_batch_size": 8,
        "accumulation_steps": 2,
        **schedule,
    }
    profile = {
        **GRID,
        "batch_size": given["batch_size"],
        "accumulation_steps": 2,
        "measurements": ["ledger", "flops"],
    }
    study = {
        "name": "predict",
        "question": "?",
        "device": "cpu",
        "schedule": given,
        "profile": [profile],
    }
    return Plan({**study, "train": [{**GRID, "seeds": [0, 1]}]}, ROOT)


def test_a_prediction_is_the_ledgers_peak_and_the_flops_of_an_update() -> None:
    plan = plan_of()
    for cell in plan.cells("predict"):
        found = predict(plan.request("predict", cell))["metrics"]
        measured = ledger(plan.request("ledger", cell))["metrics"]
        assert found["peak_bytes"] == measured["peak_bytes"]
        assert abs(found["peak_bytes"] / measured["measured_peak_bytes"] - 1) < 0.02
        assert (
            found["update_flops"] == flops(plan.request("flops", cell))["metrics"]["update_flops"]
        )
        assert found["updates"] == 4 * -(-(2400 - 400) // 64)


def test_one_prediction_serves_all_seeds_and_knows_large_evaluations() -> None:
    small, large = plan_of(), plan_of(eval_batch_size=2000)
    assert small.cells("predict") == [Cell("tiny", "generated_reviews", "full", 0), LORA]
    peaks = [
        predict(plan.request("predict", LORA))["metrics"]["peak_bytes"] for plan in (small, large)
    ]
    assert peaks[1] > 5 * peaks[0]


def test_what_training_reads_but_shapes_do_not_know_predicts_nothing_anew() -> None:
    slower = plan_of(scheduler="linear", warmup_fraction=0.5, max_gradient_norm=None)
    assert slower.request("predict", LORA) == plan_of().request("predict", LORA)
    assert slower.request("train", LORA._replace(seed=0)) != plan_of().request(
        "train", LORA._replace(seed=0)
    )


def test_a_scheduler_is_asked_for_more_than_is_predicted(tmp_path: Path) -> None:
    plan = plan_of()
    request, plan.root = plan.request("predict", LORA), tmp_path
    path = tmp_path / plan.path("predict", LORA)
    path.parent.mkdir(parents=True)
    asked = []
    for peak, updates in ((1 << 30, 10), (8 << 30, 10**6)):
        metrics = {"peak_bytes": peak, "update_flops": 10**10, "updates": updates}
        path.write_text(json.dumps({"metrics": metrics, "request": request}))
        asked.append((job_memory.training_mib(plan, LORA), job_memory.training_min(plan, LORA)))
        assert asked[-1][0] > peak / 2**20
    assert asked[1][0] > asked[0][0] + 7000
    assert asked[1][1] > asked[0][1] >= job_memory.START_MIN
    path.write_text(
        json.dumps({"metrics": metrics, "request": {**request, "device": "cuda"}})
    )  # another study's
    others = job_memory.training_mib(plan, LORA), job_memory.training_min(plan, LORA)
    path.unlink()
    assert others == (job_memory.training_mib(plan, LORA), job_memory.UNKNOWN_MIN)
    assert others[0] >= job_memory.LIBRARIES_MIB["cpu"]


def test_a_profile_asks_for_host_memory_where_its_tensors_are() -> None:
    study = yaml.safe_load((ROOT / "config/gpu.yaml").read_text())
    plan = Plan(study, ROOT, "config/gpu.yaml")
    large = next(cell for cell in plan.cells("throughput") if cell.model == "llama_2_7b")
    assert job_memory.profile_mib(plan, "throughput", large) == job_memory.LIBRARIES_MIB["cuda"]
    for grid in study["profile"]:
        grid["device"] = "cpu"
    assert (
        job_memory.profile_mib(Plan(study, ROOT, "config/gpu.yaml"), "throughput", large)
        > 4 * 6.7e9 / 2**20
    )


@pytest.mark.parametrize(
    ("model", "parameters"), [("distilbert", 66e6), ("gpt2", 124e6), ("llama_2_7b", 6.7e9)]
)
def test_the_size_of_a_model_from_its_shapes(model: str, parameters: float) -> None:
    assert abs(job_memory.parameters(library(ROOT)["models"][model]) / parameters - 1) < 0.05
