"""What a scheduler is asked for: host memory and time, from a prediction or from shapes."""

import math
from pathlib import Path

import pytest
import yaml

from helpers.predicting import LORA, plan_of
from helpers.repository import ROOT
from helpers.stored import store_result
from rankwise.core import store
from rankwise.core.config import library
from rankwise.execution import job_memory
from rankwise.study.plan import Plan


def test_a_scheduler_is_asked_for_more_than_is_predicted(tmp_path: Path) -> None:
    plan = plan_of()
    run = next(cell for cell in plan.cells("train") if cell.curve == LORA)
    request, plan.root = plan.request("predict", LORA), tmp_path
    path = tmp_path / store.DEFAULT / store.place(request)

    def asked_for(peak: int, updates: int) -> tuple[int, int]:
        metrics = {"peak_bytes": peak, "update_flops": 10**10, "updates": updates}
        path.unlink(missing_ok=True)
        store_result(tmp_path, request, lambda _: {"metrics": metrics})
        return job_memory.training_mib(plan, run), job_memory.training_min(plan, run)

    small_mib, small_min = asked_for(1 << 30, 10)
    large_mib, large_min = asked_for(8 << 30, 10**6)
    assert small_mib > 1 << 10
    assert large_mib > 8 << 10
    assert large_mib > small_mib + 7000
    assert large_min > small_min >= job_memory.START_MIN

    path.unlink()
    assert job_memory.training_mib(plan, run) >= job_memory.LIBRARIES_MIB["cpu"]
    assert job_memory.training_min(plan, run) == job_memory.UNKNOWN_MIN


def test_a_profile_asks_for_host_memory_where_its_tensors_are() -> None:
    study = yaml.safe_load((ROOT / "config/gpu.yaml").read_text())
    plan = Plan(study, ROOT, "config/gpu.yaml")
    large = next(cell for cell in plan.cells("throughput") if cell.model == "llama_2_7b")
    on_gpu = job_memory.profile_mib(plan, "throughput", large)
    assert on_gpu == job_memory.LIBRARIES_MIB["cuda"]
    for grid in study["profile"]:
        grid["device"] = "cpu"
    on_cpu = job_memory.profile_mib(Plan(study, ROOT, "config/gpu.yaml"), "throughput", large)
    assert on_cpu > 4 * 6.7e9 / 2**20


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("distilbert", 66e6),
        ("gpt2", 124e6),
        ("llama_2_7b", 6.7e9),
        ("mixtral_8x7b", 46.7e9),  # Jiang et al. 2024, arXiv 2401.04088: "47B"; 46.7B on its card
        ("qwen3_30b_a3b", 30.5e9),  # its model card
    ],
)
def test_the_size_of_a_model_from_its_shapes(model: str, parameters: float) -> None:
    counted = job_memory.parameters(library(ROOT)["models"][model])
    assert abs(counted / parameters - 1) < 0.05


def test_an_evaluation_asks_for_one_process_whatever_its_training_run_takes() -> None:
    """A model of the demo in fp32 is 4 bytes a parameter; `REAL` and `MARGIN` times that, and torch."""
    study = yaml.safe_load((ROOT / "config/language_demo.yaml").read_text())
    plan = Plan(study, ROOT, "config/language_demo.yaml")
    asked = {job_memory.evaluation_mib(plan, cell) for cell in plan.cells("evaluate")}
    layer = 4 * 64 * 64 + 3 * 64 * 192
    weights_mib = 4 * (98 * 64 + 2 * layer) / 2**20
    assert asked == {2500 + math.ceil(1.3 * 6 * weights_mib)}
