"""Peaks that others measured on GPUs, predicted at their settings: small models here, all of them in CI's study."""

import pandas as pd
import pytest

from helpers.claims import REGISTRY, cells_of, plan_of
from rankwise.analysis.claim_verdicts import judge
from rankwise.study import outputs
from rankwise.study.plan import Cell

STUDY = "config/published_memory.yaml"
# Names of claims -> the published peak in bytes, and the share by which the prediction may differ.
CASES = {
    # System C, LoRA on an RTX A6000: 811.2 MiB.
    "c_peak_lora_r8": (811.2 * 2**20, 0.03),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_small_model_has_its_published_peak(name: str) -> None:
    from rankwise.measure.memory.ledger import ledger

    plan, claim = plan_of(STUDY), REGISTRY[name]
    cell = Cell.of_columns(claim["cell"])
    metrics = ledger(plan.request("ledger", cell))["metrics"]
    published, share = CASES[name]
    assert metrics[claim["column"][0]] == pytest.approx(published, rel=share)
    frame = pd.DataFrame([{**cell.columns, "status": "ok", **metrics}])
    row = judge({name: claim}, {"ledger": frame}).iloc[0]
    assert row["verdict"] == "reproduced"


def test_every_family_names_its_source_and_its_meter() -> None:
    families = [claim for name, claim in REGISTRY.items() if name.startswith("published_memory_")]
    assert len(families) >= 55
    for claim in families:
        assert any(
            meter in claim["definition"]
            for meter in ("max_memory_allocated", "max_memory_reserved", "nvidia-smi", "active")
        ), claim["definition"]
        assert " on " in claim["definition"]
    packages = {claim["system"] for claim in families} - {"B"}
    for system in packages - {"transformers"}:
        sources = {claim["source"] for claim in families if claim["system"] == system}
        assert all(" at " in source for source in sources), sources  # owner/name at a commit


@pytest.mark.parametrize(("study", "has"), [(STUDY, True), ("config/demo.yaml", False)])
def test_a_median_of_a_few_peaks_is_not_drawn(study: str, has: bool) -> None:
    """The demo's ledger has a few cells with a published peak."""
    assert ("published_memory" in outputs.page_figures(plan_of(study))) is has


def test_no_cell_of_the_study_is_without_a_published_peak() -> None:
    claimed = {
        Cell.of_columns(cell)
        for claim in REGISTRY.values()
        if claim["study"] == STUDY and claim.get("table") == "ledger"
        for cell in cells_of(claim)
    }
    assert set(plan_of(STUDY).cells("ledger")) == claimed
