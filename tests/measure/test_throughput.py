"""Training updates of the tiny model: FLOPs, gradient norms, notes. No time is asserted."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.profiling import TinyEncoder, profile_request
from rankwise.core import result
from rankwise.measure import step
from rankwise.measure.speed import latency
from rankwise.measure.speed import throughput as updates
from rankwise.measure.speed.latency import forward
from rankwise.measure.speed.throughput import throughput

BOTH = pytest.mark.parametrize(
    ("measurement", "measure"), [("forward", forward), ("throughput", throughput)]
)


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUND_S", 0.01)
    monkeypatch.setattr(updates, "AIM_S", 0.05)
    monkeypatch.setattr(updates, "PEAK_SIDE", {"cpu": 128})


def request(method: str, measurement: str = "throughput", **grid: object) -> dict:
    sizes = {"batch_size": 4}
    if measurement == "forward":
        sizes |= {"batch_sizes": [1, 4], "lengths_tokens": [8, 16]}
    return profile_request(measurement, method, **{**sizes, **grid})


@pytest.mark.parametrize(("accumulation", "checkpointing"), [(1, False), (3, True)])
def test_an_update_is_counted_and_adds_up(accumulation: int, checkpointing: bool) -> None:
    """Backward is twice forward, and what checkpointing recomputes does not count."""
    grid = {"accumulation_steps": accumulation, "checkpointing": checkpointing}
    measured = throughput(request("full", sequence_length_tokens=16, **grid), processes=1)
    sizes, cost = measured["metrics"], measured["cost"]
    model_flops = 3 * accumulation * TinyEncoder.forward_flops(4, 16)
    samples_per_s = 4 * accumulation / cost["update_time_s"]
    utilisation = model_flops / cost["update_time_s"] / cost["peak_measured_flops_per_s"]
    assert sizes["model_flops"] == model_flops
    assert cost["throughput_samples_per_s"] == pytest.approx(samples_per_s, rel=1e-12)
    assert cost["throughput_tokens_per_s"] == pytest.approx(16 * samples_per_s, rel=1e-12)
    assert cost["model_flops_utilisation_fraction"] == pytest.approx(utilisation, rel=1e-12)
    for part in ("forward", "backward", "optimizer", "update"):
        low, median, high = (cost[f"{part}_time_{end}"] for end in ("q1_s", "s", "q3_s"))
        assert 0 < low <= median <= high
    assert cost["repeats"] >= updates.LEAST


@BOTH
@pytest.mark.parametrize("is_deterministic", [True, False])
def test_passes_are_timed_with_the_kernels_of_training(
    measurement: str, measure: Callable, is_deterministic: bool
) -> None:
    seen = set()

    class Kernels(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.addmm.default and not args[0].is_meta:
                seen.add(torch.are_deterministic_algorithms_enabled())
            return func(*args, **kwargs or {})

    with Kernels():
        measure({**request("full", measurement), "deterministic": is_deterministic}, processes=1)
    assert seen == {is_deterministic}


class Products(TorchDispatchMode):
    """Multiply-adds of matrix products by the dtype of their factors."""

    POSITIONS = MappingProxyType({"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1)})

    def __init__(self) -> None:
        super().__init__()
        self.by_dtype: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.POSITIONS:
            left, right = (args[position] for position in self.POSITIONS[name])
            self.by_dtype[left.dtype] += left.numel() * right.shape[-1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["full", "lora", "lora_bf16", "qlora"])
def test_the_peak_is_of_products_in_the_dtype_of_most_of_the_steps_products(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, measured_in = request(method), []

    def peak(_device: str, dtype: torch.dtype) -> float:
        measured_in.append(dtype)
        return 1.0

    monkeypatch.setattr(updates, "_peak_flops_per_s", peak)
    throughput(asked, processes=1)
    with Products() as products:
        step.step(asked, "cpu").run()
    (most, _), *_ = products.by_dtype.most_common()
    assert measured_in == [most]


def test_a_frozen_model_has_a_forward_only() -> None:
    measured = throughput(request("frozen"), processes=1)
    assert measured["groups"] == []
    assert "forward_time_s" in measured["cost"]
    assert not {"backward_time_s", "optimizer_time_s"} & set(measured["cost"])


# Gradient norms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradient_norms_by_group_add_up_to_the_norm(accumulation: int) -> None:
    asked = request("full", accumulation_steps=accumulation)
    measured = throughput(asked, processes=1)
    torch.manual_seed(0)
    training_step = step.step(asked, "cpu")
    for _ in range(accumulation):
        (training_step.forward() / accumulation).backward()
    gradients = [param.grad for param in training_step.trainable()]
    total = torch.nn.utils.get_total_norm(gradients).item()

    norms = {row["group"]: row["gradient_norm"] for row in measured["groups"]}
    squares = sum(norm**2 for norm in norms.values())
    assert squares**0.5 == pytest.approx(total, rel=1e-5)
    assert measured["metrics"]["gradient_norm"] == pytest.approx(total, rel=1e-5)
    assert set(norms) == {"embeddings", "attention", "feed_forward", "norms", "head"}


@pytest.mark.parametrize(("method", "groups"), [
    ("lora", {"adapters", "head"}), ("head_only", {"head"}), ("weight_reduction", {"adapters", "head"}),
])  # fmt: skip
def test_groups_are_those_that_train(method: str, groups: set[str]) -> None:
    measured = throughput(request(method), processes=1)
    assert {row["group"] for row in measured["groups"]} == groups


def test_the_norms_are_reproducible() -> None:
    first, second = (throughput(request("lora"), processes=1) for _ in range(2))
    assert (first["groups"], first["metrics"]) == (second["groups"], second["metrics"])


@pytest.mark.parametrize(
    ("method", "words"),
    [("full_released", "steps inside backward"), ("vlorp", "projected and freed")],
)
def test_released_gradients_have_no_norm_and_a_note_says_so(method: str, words: str) -> None:
    measured = throughput(request(method), processes=1)
    assert words in measured["metrics"]["note"]
    assert measured["groups"] == []


# Both measurements of speed ---------------------------------------------------------------------


@BOTH
def test_an_unsupported_method_is_a_result(measurement: str, measure: Callable) -> None:
    outcome = measure(request("prefix_tuning", measurement), processes=1)
    assert outcome["status"] == "unsupported"
    assert outcome["reason"].startswith("transformers")


@BOTH
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_one_sentence(measurement: str, measure: Callable) -> None:
    with pytest.raises(
        RuntimeError, match=r"^profile\.N\.device: got cuda, allowed on this machine: cpu"
    ):
        measure({**request("full", measurement), "device": "cuda"})


@BOTH
def test_every_column_has_a_unit(measurement: str, measure: Callable, tmp_path: Path) -> None:
    asked = request("lora", measurement)
    result.write(tmp_path / "result.json", asked, measure(asked, processes=1), {})


def test_more_threads_than_cores_taint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0}, raising=False)
    measured = throughput({**request("head_only"), "cpu_threads": 2}, processes=1)
    torch.set_num_threads(1)
    assert "2 threads on 1 core" in measured["cost"]["taint"].split("; ")
