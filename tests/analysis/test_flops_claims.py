"""Claims on published step FLOPs: their verdicts, and the studies that decide them."""

import pandas as pd
import yaml

from helpers.published_steps import STEPS
from helpers.repository import ROOT
from rankwise.analysis.claim_verdicts import judge
from rankwise.study import outputs
from rankwise.study.plan import Cell, Plan

NAME = "a_step_flops_rsvd_r4"
PUBLISHED = STEPS[NAME]["published"]
ROW = {
    **STEPS[NAME]["cell"],
    **STEPS[NAME]["settings"],
    "status": "ok",
    "profiler_step_flops": PUBLISHED,
}


def verdict(tables: dict[str, pd.DataFrame]) -> str:
    return judge({NAME: STEPS[NAME]}, tables)["verdict"].item()


def verdict_of(row: dict) -> str:
    return verdict({"flops": pd.DataFrame([row])})


def test_a_claim_without_its_table_row_or_number_is_not_yet_run() -> None:
    without_number = {key: value for key, value in ROW.items() if key != "profiler_step_flops"}
    assert verdict({}) == "not yet run"
    assert verdict_of({**ROW, "rank": 8}) == "not yet run"
    assert verdict_of(without_number) == "not yet run"


def test_a_claim_is_decided_to_the_flop_and_a_failure_is_named() -> None:
    failed = {"status": "out_of_memory", "profiler_step_flops": None}
    assert verdict_of(ROW) == "reproduced"
    assert verdict_of({**ROW, "profiler_step_flops": PUBLISHED + 1}) == "not reproduced"
    assert verdict_of({**ROW, **failed}) == "out of memory"


def test_claims_ask_for_the_tables_that_the_study_has(plan: Plan) -> None:
    assert outputs.claim_tables(plan) == ["runs", "memory", "flops", "ledger", "state"]
    cell = {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full"]}

    def plan_with(measurement: str) -> Plan:
        study = {"name": "t", "question": "?", "device": "cpu"}
        return Plan({**study, "profile": [{**cell, "measurements": [measurement]}]}, ROOT)

    assert outputs.claims_request(plan_with("flops"))["tables"] == ["flops"]
    assert "claims" in outputs.page_tables(plan_with("flops"))
    assert "claims" not in outputs.page_tables(plan_with("forward"))


def test_the_paper_study_decides_every_published_step() -> None:
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    cells = set(Plan(study, ROOT).cells("flops"))
    assert {Cell(**claim["cell"]) for claim in STEPS.values()} <= cells
