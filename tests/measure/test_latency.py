"""Forward passes of the tiny model: the grid, FLOPs in closed form, rates. No time is asserted."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.profiling import TinyEncoder, profile_request
from rankwise.measure import step
from rankwise.measure.speed import latency
from rankwise.measure.speed.latency import forward

SIZES, LENGTHS, RANK = [1, 4], [8, 16], 4


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUND_S", 0.01)


def request(method: str, **grid: object) -> dict:
    sizes = {"batch_size": 4, "batch_sizes": SIZES, "lengths_tokens": LENGTHS}
    return profile_request("forward", method, **{**sizes, **grid})


def one_batch(method: str) -> dict:
    return request(method, batch_sizes=[2], lengths_tokens=[8])


def lora_flops(size: int, length: int) -> int:
    """What query and value of every layer add: two factors of rank 4."""
    return TinyEncoder.LAYERS * 2 * 2 * size * length * RANK * 2 * TinyEncoder.WIDTH


def test_the_grid_is_whole_and_its_flops_are_the_closed_form() -> None:
    rows = forward(request("lora"), processes=1)["rows"]
    flops_by_key = {
        (row["batch_size"], row["sequence_length_tokens"], row["merged"]): row["forward_flops"]
        for row in rows
    }
    wanted = {}
    for size in SIZES:
        for length in LENGTHS:
            base = TinyEncoder.forward_flops(size, length)
            wanted[size, length, True] = base
            wanted[size, length, False] = base + lora_flops(size, length)
    assert flops_by_key == wanted


@pytest.mark.parametrize(("method", "states"), [
    ("full", {False}), ("head_only", {False}), ("frozen", {False}), ("hira", {False, True}), ("weight_reduction", {False, True}),
])  # fmt: skip
def test_merged_rows_exist_where_merging_changes_a_module(method: str, states: set[bool]) -> None:
    rows = forward(one_batch(method), processes=1)["rows"]
    assert {row["merged"] for row in rows} == states
    for row in rows:
        if row["merged"] or method in ("full", "frozen"):
            assert row["forward_flops"] == TinyEncoder.forward_flops(2, 8)


def test_a_really_merged_model_has_the_flops_of_its_row() -> None:
    request = one_batch("hira")
    method, model, _ = step.adapted(request, "cpu")
    model = method.merge(model).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(2, 8, dtype=int))
    merged = [row for row in forward(request, processes=1)["rows"] if row["merged"]]
    assert [row["forward_flops"] for row in merged] == [counter.get_total_flops()]


def test_rates_are_of_the_median_and_quartiles_are_in_order() -> None:
    for row in forward(request("full"), processes=1)["rows"]:
        low, median, high = (row[f"forward_latency_{end}"] for end in ("q1_s", "s", "q3_s"))
        assert 0 < low <= median <= high
        samples_per_s = row["throughput_samples_per_s"]
        assert samples_per_s == row["batch_size"] / median
        assert row["throughput_tokens_per_s"] == samples_per_s * row["sequence_length_tokens"]
        assert row["repeats"] >= latency.ROUNDS


@pytest.mark.slow
def test_samples_come_from_fresh_processes() -> None:
    alone = forward(one_batch("lora"), processes=1)
    pooled = forward(one_batch("lora"))
    assert pooled["metrics"]["processes"] == 2
    assert [row["forward_flops"] for row in pooled["rows"]] == [
        row["forward_flops"] for row in alone["rows"]
    ]
    assert all(row["repeats"] > latency.ROUNDS for row in pooled["rows"])
