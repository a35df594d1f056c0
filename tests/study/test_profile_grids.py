"""Grids of profiles: which are refused, and which need a GPU."""

import pytest

from helpers.profiling import ledger_request, profile_request
from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.study.plan import Cell, Plan


def test_a_length_beyond_the_positions_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="lengths_tokens: got 65, allowed: at most 64, the positions of tiny"
    ):
        ledger_request("tiny", "full", "fits", lengths_tokens=[65])


def test_virtual_tokens_count_in_every_length() -> None:
    with pytest.raises(ConfigError, match="virtual tokens of prompt_tuning before 64 tokens"):
        ledger_request("tiny", "prompt_tuning", "forward", lengths_tokens=[64])


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("memory_gib", [0]), ("device", "tpu"), ("lengths_tokens", [])],
)
def test_a_grid_with_nonsense_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"profile.0.{key}"):
        ledger_request("tiny", "full", "fits", **{key: value})


def test_a_step_inside_backward_cannot_accumulate() -> None:
    with pytest.raises(
        ConfigError, match="accumulation_steps: got 2, allowed: 1 with full_released"
    ):
        profile_request("throughput", "full_released", batch_size=4, accumulation_steps=2)


@pytest.mark.parametrize(
    ("measured", "on_gpu"),
    [(True, {"ledger", "forward", "throughput"}), (False, {"forward", "throughput"})],
)
def test_a_gpu_is_planned_only_for_what_is_measured_on_it(measured: bool, on_gpu: set[str]) -> None:
    kinds = ["memory", "flops", "ledger", "fits", "forward", "throughput"]
    grid = {
        "models": ["tiny"],
        "datasets": ["sst2"],
        "methods": ["full"],
        "device": "cuda",
        "sequence_length_tokens": 32,
        "measurements": kinds,
        "measured": measured,
    }
    study = {"name": "t", "question": "?", "device": "cpu", "environment": "gpu"}
    plan = Plan({**study, "profile": [grid]}, ROOT)
    cell = Cell("tiny", "sst2", "full", 0)
    assert {kind for kind in kinds if plan.needs_gpu(kind, cell)} == on_gpu
    locks = {kind: plan.request(kind, cell)["environment"]["lock"] for kind in kinds}
    assert {kind for kind in kinds if locks[kind] == "envs/gpu.lock"} == on_gpu
