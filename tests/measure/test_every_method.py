"""Every shipped method's predicted peak, where an update is made in a less usual way.

check_smoke.py compares every method's peak of a plain step.
"""

import pytest
import yaml

from helpers.profiling import ledger_request
from helpers.repository import ROOT
from rankwise.measure.memory.ledger import LIMIT, ledger

METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text(encoding="utf-8"))
# They step inside backward, so they have one micro-batch an update.
INSIDE_BACKWARD = {"adalomo", "full_released", "lomo"}
SETTINGS = {
    "batch_size": 4,
    "accumulation_steps": 4,
    "precision": "bf16",
    "attention": "eager",
    "padded": True,  # texts of several lengths
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_autocast_eager_attention_and_padding(method: str) -> None:
    once = {"accumulation_steps": 1} if method in INSIDE_BACKWARD else {}
    result = ledger(ledger_request("tiny", method, **{**SETTINGS, **once}))
    if result.get("status") == "unsupported":
        pytest.skip(result["reason"])
    metrics = result["metrics"]
    assert abs(metrics["residual_fraction"]) <= LIMIT
    gap = metrics["tracked_peak_bytes"] - metrics["peak_bytes"]
    assert abs(gap) <= LIMIT * metrics["tracked_peak_bytes"]
