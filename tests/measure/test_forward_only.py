"""Profiles of MeZO: two forward passes, no gradients, and what of one forward pass is alive at a time."""

import pytest

from helpers.profiling import ledger_request, profile_request
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.ledger import ledger
from rankwise.measure.memory.persistent import memory
from rankwise.measure.speed.throughput import FORWARD_ONLY_NOTE, throughput


@pytest.mark.parametrize("method", ["mezo", pytest.param("lora_mezo", marks=pytest.mark.slow)])
def test_its_ledger_closes_without_gradients_and_state(method: str) -> None:
    metrics = ledger(ledger_request("tiny", method))["metrics"]
    assert abs(metrics["residual_bytes"]) <= 1024
    assert metrics["gradients_bytes"] == metrics["optimizer_state_bytes"] == 0
    assert metrics["peak_phase"] in ("first_forward", "forward")
    assert "backward_peak_bytes" not in metrics
    with_gradients = ledger({**ledger_request("tiny", "full"), "measured": False})["metrics"]
    # Without what backward reads, only one layer's tensors are alive at a time.
    assert metrics["peak_bytes"] < with_gradients["peak_bytes"] - with_gradients["gradients_bytes"]


def test_an_update_is_two_forward_passes() -> None:
    """Two micro-batches: two losses of two passes each. Drawing and adding z is no matrix product."""
    mezo = flops(profile_request("flops", "mezo", accumulation_steps=2))["metrics"]
    full = flops(profile_request("flops", "full", accumulation_steps=2))["metrics"]
    forward = full["forward_flops"]
    assert mezo["forward_flops"] == mezo["second_forward_flops"] == forward
    assert mezo["backward_flops"] == mezo["optimizer_flops"] == 0
    assert mezo["step_flops"] == 2 * forward
    assert mezo["update_flops"] == 4 * forward


def test_nothing_is_kept_between_steps() -> None:
    metrics = memory(profile_request("memory", "mezo"))["metrics"]
    assert metrics["gradients_bytes"] == metrics["optimizer_state_bytes"] == 0


@pytest.mark.slow
def test_its_updates_are_timed() -> None:
    result = throughput(
        profile_request("throughput", "mezo", sequence_length_tokens=16), processes=1
    )
    assert result["metrics"]["note"] == FORWARD_ONLY_NOTE
    assert result["cost"]["forward_time_s"] > 0
    assert "backward_time_s" not in result["cost"]
