"""The curve that a study names as the page's reference must be one that it trains."""

import pytest

from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.study import outputs
from rankwise.study.plan import Plan


def plan_of(reference: dict | None, **parts: object) -> Plan:
    grid = {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora"]}
    study = {"name": "t", "question": "?", "device": "cpu", **parts}
    study.setdefault("train", [{**grid, "ranks": [2, 8], "seeds": [0]}])
    return Plan({**study, "reference": reference} if reference else study, ROOT)


@pytest.mark.parametrize("reference", [
    {"method": "full"}, {"method": "lora"}, {"method": "lora", "rank": 8}, {"method": "full", "rank": 0},
])  # fmt: skip
def test_a_trained_curve_may_be_the_reference(reference: dict) -> None:
    assert plan_of(reference).study["reference"] == reference


@pytest.mark.parametrize(("reference", "message"), [
    ({"method": "rsvd"}, "reference.method: got 'rsvd', allowed: a method that the study trains: full, lora"),
    ({"method": "lora", "rank": 4}, "reference.rank: got 4, allowed: a rank at which it trains lora: 2, 8"),
    ({"method": "full", "rank": 2}, "reference.rank: got 2, allowed: a rank at which it trains full: 0"),
    ({"rank": 8}, "reference.method: got 'nothing'"),
    ({"method": "lora", "seed": 0}, "reference: got 'seed'"),
])  # fmt: skip
def test_another_reference_is_one_sentence(reference: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(reference)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_that_trains_nothing_has_no_reference() -> None:
    with pytest.raises(ConfigError, match="trains: it trains none"):
        profile = {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full"]}
        plan_of({"method": "full"}, train=[], profile=[{**profile, "measurements": ["memory"]}])


def test_another_reference_rewrites_the_page_and_no_table() -> None:
    plain, named = plan_of(None), plan_of({"method": "lora"})
    assert outputs.page_request(plain) != outputs.page_request(named)
    for request in (outputs.evidence_request, outputs.summary_request, outputs.views_request):
        assert request(plain) == request(named)
    assert outputs.table_request(plain, "runs") == outputs.table_request(named, "runs")
