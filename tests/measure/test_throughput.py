"""Forward passes and training updates on the tiny model: grids, counts, norms, taints. No time is asserted."""

import os
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.repository import ROOT
from rankwise.core import result
from rankwise.core.config import ConfigError
from rankwise.measure import step
from rankwise.measure.speed import latency as forward_pass
from rankwise.measure.speed import meters
from rankwise.measure.speed import throughput as updates
from rankwise.measure.speed.latency import forward
from rankwise.measure.speed.meters import Watch
from rankwise.measure.speed.throughput import throughput
from rankwise.study.plan import Plan

SIZES, LENGTHS, RANK = [1, 4], [8, 16], 4
# The tiny encoder: width, inner width, layers, classes of generated_reviews.
D, H, LAYERS, CLASSES = 64, 128, 2, 2
QUARTILES = ("q1_s", "s", "q3_s")


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_pass, "ROUND_S", 0.01)
    monkeypatch.setattr(updates, "AIM_S", 0.05)
    monkeypatch.setattr(updates, "PEAK_SIDE", {"cpu": 128})


def request(measurement: str, method: str, **grid: object) -> dict:
    asked = {
        "models": ["tiny"],
        "datasets": ["generated_reviews"],
        "methods": [method],
        "ranks": [RANK],
        "batch_size": 4,
    }
    both = {
        "measurements": ["forward", "throughput"],
        "batch_sizes": SIZES,
        "lengths_tokens": LENGTHS,
        **grid,
    }
    study = {
        "name": "t",
        "question": "?",
        "device": "cpu",
        "cpu_threads": 1,
        "profile": [{**asked, **both}],
    }
    plan = Plan(study, ROOT)
    return plan.request(measurement, plan.cells(measurement)[0])


def closed_forward(size: int, length: int, adapted: int = 0) -> int:
    """Two FLOPs a multiply-add; `adapted` counts the d x d matrices that LoRA runs beside, two factors each."""
    tokens = size * length
    dense = 2 * tokens * LAYERS * (4 * D * D + 2 * D * H) + 2 * size * (D * D + CLASSES * D)
    return dense + LAYERS * 2 * 2 * size * length * length * D + adapted * 2 * tokens * RANK * 2 * D


def test_the_grid_is_whole_and_its_flops_are_the_closed_form() -> None:
    rows = forward(request("forward", "lora"), processes=1)["rows"]
    found = {
        (row["batch_size"], row["sequence_length_tokens"], row["merged"]): row["forward_flops"]
        for row in rows
    }
    assert found == {
        (size, length, merged): closed_forward(size, length, adapted=0 if merged else 2 * LAYERS)
        for size in SIZES
        for length in LENGTHS
        for merged in (False, True)
    }


@pytest.mark.parametrize(("method", "states"), [
    ("full", {False}), ("head_only", {False}), ("frozen", {False}), ("hira", {False, True}), ("weight_reduction", {False, True}),
])  # fmt: skip
def test_merged_rows_are_there_where_merging_changes_a_module(
    method: str, states: set[bool]
) -> None:
    rows = forward(request("forward", method, batch_sizes=[2], lengths_tokens=[8]), processes=1)[
        "rows"
    ]
    assert {row["merged"] for row in rows} == states
    assert all(
        row["forward_flops"] == closed_forward(2, 8)
        for row in rows
        if row["merged"] or method in ("full", "frozen")
    )


def test_a_really_merged_model_has_the_flops_of_its_row() -> None:
    asked = request("forward", "hira", batch_sizes=[2], lengths_tokens=[8])
    method, model, _ = step.adapted(
        {**asked, "shapes": {**asked["shapes"], "batch_size": 2}}, "cpu"
    )
    model = method.merge(model).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(2, 8, dtype=int))
    rows = forward(asked, processes=1)["rows"]
    assert next(row["forward_flops"] for row in rows if row["merged"]) == counter.get_total_flops()


def test_rates_are_of_the_median_and_quartiles_are_in_order() -> None:
    for row in forward(request("forward", "full"), processes=1)["rows"]:
        low, middle, high = (row[f"forward_latency_{end}"] for end in QUARTILES)
        assert 0 < low <= middle <= high
        assert row["throughput_samples_per_s"] == row["batch_size"] / middle
        assert (
            row["throughput_tokens_per_s"]
            == row["throughput_samples_per_s"] * row["sequence_length_tokens"]
        )
        assert row["repeats"] >= forward_pass.ROUNDS


def test_what_cannot_be_adapted_is_unsupported() -> None:
    for measurement, measure in (("forward", forward), ("throughput", throughput)):
        found = measure(request(measurement, "prefix_tuning"), processes=1)
        assert (found["status"], found["reason"][:12]) == ("unsupported", "transformers")


@pytest.mark.parametrize(("accumulation", "checkpointing"), [(1, False), (3, True)])
def test_an_update_is_counted_and_adds_up(accumulation: int, checkpointing: bool) -> None:
    grid = {
        "sequence_length_tokens": 16,
        "accumulation_steps": accumulation,
        "checkpointing": checkpointing,
    }
    found = throughput(request("throughput", "full", **grid), processes=1)
    sizes, cost = found["metrics"], found["cost"]
    assert sizes["model_flops"] == 3 * accumulation * closed_forward(
        4, 16
    )  # backward is twice forward; nothing recomputed
    assert cost["throughput_samples_per_s"] == pytest.approx(
        4 * accumulation / cost["update_time_s"], rel=1e-12
    )
    assert cost["throughput_tokens_per_s"] == pytest.approx(
        16 * cost["throughput_samples_per_s"], rel=1e-12
    )
    achieved = sizes["model_flops"] / cost["update_time_s"]
    assert cost["model_flops_utilisation_fraction"] == pytest.approx(
        achieved / cost["peak_measured_flops_per_s"], rel=1e-12
    )
    for part in ("forward", "backward", "optimizer", "update"):
        low, middle, high = (cost[f"{part}_time_{end}"] for end in QUARTILES)
        assert 0 < low <= middle <= high
    assert cost["repeats"] >= updates.LEAST


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradient_norms_by_group_add_up_to_the_norm(accumulation: int) -> None:
    asked = request("throughput", "full", accumulation_steps=accumulation)
    found = throughput(asked, processes=1)
    torch.manual_seed(0)
    made = step.step(asked, "cpu")
    for _ in range(accumulation):
        (made.forward() / accumulation).backward()
    total = torch.nn.utils.get_total_norm([param.grad for param in made.trainable()]).item()
    squares = sum(group["gradient_norm"] ** 2 for group in found["groups"])
    assert squares**0.5 == pytest.approx(total, rel=1e-5)
    assert found["metrics"]["gradient_norm"] == pytest.approx(total, rel=1e-5)
    assert {group["group"] for group in found["groups"]} == {
        "embeddings",
        "attention",
        "feed_forward",
        "norms",
        "head",
    }


@pytest.mark.parametrize(
    ("method", "groups"),
    [
        ("lora", {"adapters", "head"}),
        ("head_only", {"head"}),
        ("weight_reduction", {"adapters", "head"}),
    ],
)
def test_groups_are_of_what_trains(method: str, groups: set[str]) -> None:
    found = throughput(request("throughput", method), processes=1)
    assert {group["group"] for group in found["groups"]} == groups


def test_the_norms_are_reproducible() -> None:
    one, other = (throughput(request("throughput", "lora"), processes=1) for _ in range(2))
    assert (one["groups"], one["metrics"]) == (other["groups"], other["metrics"])


def test_a_frozen_model_has_a_forward_only() -> None:
    found = throughput(request("throughput", "frozen"), processes=1)
    assert found["groups"] == []
    assert "forward_time_s" in found["cost"]
    assert not {"backward_time_s", "optimizer_time_s"} & set(found["cost"])


@pytest.mark.parametrize(
    ("method", "word"),
    [("full_released", "steps inside backward"), ("vlorp", "projected and freed")],
)
def test_released_gradients_have_no_norm_and_the_row_says_so(method: str, word: str) -> None:
    found = throughput(request("throughput", method), processes=1)
    assert word in found["metrics"]["note"]
    assert found["groups"] == []


def test_a_step_inside_backward_cannot_accumulate() -> None:
    with pytest.raises(
        ConfigError, match="accumulation_steps: got 2, allowed: 1 with full_released"
    ):
        request("throughput", "full_released", accumulation_steps=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize(
    ("measurement", "measure"), [("forward", forward), ("throughput", throughput)]
)
def test_a_device_that_is_not_there_is_one_sentence(measurement: str, measure: object) -> None:
    with pytest.raises(
        RuntimeError, match=r"^profile\.N\.device: got cuda, allowed on this machine: cpu"
    ):
        measure({**request(measurement, "full"), "device": "cuda"})


def test_every_column_has_a_unit(tmp_path: Path) -> None:
    for measurement, measure in (("forward", forward), ("throughput", throughput)):
        asked = request(measurement, "lora")
        found = measure(asked, processes=1)
        result.write(tmp_path / "result.json", asked, found, {})
        for row in found.get("groups", []):
            result.check_units(row)


def test_more_threads_than_cores_taint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0}, raising=False)
    found = throughput({**request("throughput", "head_only"), "cpu_threads": 2}, processes=1)
    torch.set_num_threads(1)
    assert "2 threads on 1 core" in found["cost"]["taint"].split("; ")


def ticks(path: Path, user: int, idle: int) -> None:
    path.write_text(
        "\n".join(
            ["cpu  1 2 3 4", *(f"cpu{core} {user} 0 0 {idle} 0 0 0 0 0 0" for core in range(512))]
        )
    )


@pytest.mark.parametrize(("used", "taints"), [(90, True), (10, False)])
def test_a_busy_processor_taints(
    used: int, taints: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters, "STAT", tmp_path / "stat")
    ticks(tmp_path / "stat", 1000, 5000)
    with Watch("cpu") as watch:
        ticks(tmp_path / "stat", 1000 + 10 * used, 5000 + 10 * (100 - used))
    assert watch.other_cpu() == pytest.approx(used / 100, abs=0.02)
    assert ("other processes used over 20 % of the cores" in watch.taint()) == taints


def test_nothing_to_read_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "STAT", tmp_path / "absent")
    monkeypatch.setattr(meters, "POWERCAP", tmp_path / "absent")
    with Watch("cpu") as watch:
        pass
    assert (watch.other_cpu(), watch.energy()) == (None, None)


def test_rapl_counts_every_package_across_its_wrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (name, used) in enumerate([("package-0", 900), ("package-1", 100), ("dram", 5)]):
        folder = tmp_path / f"intel-rapl:{number}"
        folder.mkdir()
        for file, text in (("name", name), ("energy_uj", used), ("max_energy_range_uj", 1000)):
            (folder / file).write_text(f"{text}\n")
    monkeypatch.setattr(meters, "POWERCAP", tmp_path)
    with Watch("cpu") as watch:
        (tmp_path / "intel-rapl:0/energy_uj").write_text("100\n")
        (tmp_path / "intel-rapl:1/energy_uj").write_text("150\n")
    joules, meter = watch.energy()
    assert joules == pytest.approx(250e-6)
    assert meter.startswith("rapl:package-0+package-1")


@pytest.mark.slow
def test_samples_come_from_fresh_processes() -> None:
    alone = forward(request("forward", "lora", batch_sizes=[2], lengths_tokens=[8]), processes=1)
    found = forward(request("forward", "lora", batch_sizes=[2], lengths_tokens=[8]))
    assert found["metrics"]["processes"] == 2
    assert [row["forward_flops"] for row in found["rows"]] == [
        row["forward_flops"] for row in alone["rows"]
    ]
    assert all(row["repeats"] > forward_pass.ROUNDS for row in found["rows"])
