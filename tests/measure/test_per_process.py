"""What one of several processes holds: predicted from shapes, against numbers counted by hand."""

import pytest

from helpers.repository import ROOT
from rankwise.measure.memory.ledger import ledger
from rankwise.measure.predict import predict
from rankwise.study.plan import Plan


def plan(method: str, batch_size: int, **several: object) -> Plan:
    grid = {"methods": [method], "measurements": ["ledger"], "measured": False, **several}
    study = {
        "name": "several",
        "question": "What does one process hold?",
        "device": "cpu",
        "model": "tiny",
        "data": "generated_reviews",
        "train": [{"methods": [method], "seeds": [0], "schedule": {"updates": 2, **several}}],
        "schedule": {"batch_size": batch_size, "max_gradient_norm": None},
        "profile": [{**grid, "batch_size": batch_size}],
    }
    return Plan(study, ROOT, "config/several.yaml")


def request(measurement: str, *arguments: object, **several: object) -> dict:
    planned = plan(*arguments, **several)
    (cell,) = planned.cells(measurement)
    return planned.request(measurement, cell)


def test_ddp_adds_buckets_of_the_size_of_the_gradients() -> None:
    alone = ledger(request("ledger", "full", 4))["metrics"]
    one_of_two = ledger(request("ledger", "full", 8, processes=2))["metrics"]
    assert one_of_two["peak_bytes"] == alone["peak_bytes"] + alone["weights_bytes"]
    assert one_of_two["weights_bytes"] == alone["weights_bytes"]


def test_fsdp2_holds_a_share_and_two_gathered_layers() -> None:
    """The tiny model's embedding is its largest part: 2 copies of it, and 2 of its gradient."""
    asked = request("ledger", "full", 16, processes=4, sharding="fsdp2")
    architecture = asked["model"]["architecture"]
    words = architecture["vocab_size"] * asked["model"]["hidden_size"] * 4
    alone = ledger(request("ledger", "full", 4))["metrics"]
    shared = ledger(asked)["metrics"]
    for kind in ("weights", "gradients", "optimizer_state"):
        assert shared[f"{kind}_bytes"] == pytest.approx(alone[f"{kind}_bytes"] / 4, abs=1)
    gathered = shared["temporary_bytes"] - alone["temporary_bytes"]
    assert 4 * words < gathered < 4 * alone["weights_bytes"]
    kinds = ("weights", "gradients", "optimizer_state", "temporary")
    change = sum(shared[f"{kind}_bytes"] - alone[f"{kind}_bytes"] for kind in kinds)
    assert shared["peak_bytes"] == alone["peak_bytes"] + change


def test_a_released_optimizer_has_no_buckets() -> None:
    alone = predict(request("predict", "full_released", 4))["metrics"]
    one_of_two = predict(request("predict", "full_released", 8, processes=2))["metrics"]
    assert one_of_two["peak_bytes"] == alone["peak_bytes"]
    assert one_of_two["update_flops"] == alone["update_flops"]


def test_requests_of_one_process_do_not_name_processes() -> None:
    for measurement in ("predict", "ledger"):
        assert "processes" not in request(measurement, "full", 8)
        assert request(measurement, "full", 8, processes=2)["shapes"]["batch_size"] == 4
