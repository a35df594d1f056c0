"""Verdicts on published numbers: the rule that computes them, and what a registered claim must hold."""

import math

import pandas as pd
import pytest
import yaml

from helpers.claims import CELL, LIBRARY, REGISTRY
from helpers.repository import ROOT
from rankwise.analysis.claim_verdicts import judge
from rankwise.core import paths, schemas
from rankwise.core.config import ConfigError
from rankwise.study import claims
from rankwise.study.plan import Plan

FAMILY = {
    "system": "A", "title": "t", "definition": "d", "unit": "fraction", "source": "s", "table": "runs",
    "column": "accuracy_fraction", "cell": CELL, "settings": {"learning_rate": 2.0e-4, "updates": 100}, "published": 0.9,
}  # fmt: skip
Frames = dict[str, pd.DataFrame]


def decide(frames: Frames | None = None, **changes: object) -> pd.Series:
    """The row of one claim: FAMILY with some keys changed; keys changed to None are left out."""
    family = {key: value for key, value in {**FAMILY, **changes}.items() if value is not None}
    checked = schemas.check({"one": family}, paths.SCHEMAS / "claims.schema.yaml", claims.FILE)
    claims.check({**LIBRARY, "claims": checked})
    return judge(claims.expand(checked), frames or {}).iloc[0]


def verdict(frames: Frames, **changes: object) -> str:
    return decide(frames, **changes)["verdict"]


def runs(*accuracies: float | None, **columns: object) -> Frames:
    """A table of runs, one for each random seed; None stands for a run that diverged."""
    rows = []
    for seed, accuracy in enumerate(accuracies):
        row = {
            **CELL,
            "seed": seed,
            "status": "diverged" if accuracy is None else "ok",
            "device": "cuda",
            "learning_rate": 2.0e-4,
            "updates": 98,
            "accuracy_fraction": accuracy,
        }
        rows.append({**row, **columns})
    return {"runs": pd.DataFrame(rows)}


def by_seed(column: str, *values: float) -> Frames:
    """A table of runs with another column than the accuracy, a value for each random seed."""
    frames = runs(*[0.5] * len(values))
    frames["runs"][column] = values
    return frames


def estimates(low: float, high: float, seeds: int) -> Frames:
    """A table of estimates with one interval."""
    numbers = {"seeds": seeds, "estimate": (low + high) / 2, "low": low, "high": high}
    return {"estimates": pd.DataFrame([{**CELL, "metric": "accuracy_fraction", **numbers}])}


# The mean and its interval ------------------------------------------------------------------------

THREE = runs(0.86, 0.90, 0.91)


def test_the_mean_over_seeds_decides() -> None:
    row = decide(THREE)
    assert row["ours"] == pytest.approx(0.89)
    assert math.isnan(row["low"])
    assert row["verdict"] == "not reproduced"
    assert "mean of 3 seeds" in row["reason"]


def test_the_published_number_may_lie_in_our_interval_widened_by_the_tolerance() -> None:
    row = decide(THREE | estimates(0.87, 0.91, 3))
    assert (row["verdict"], row["low"], row["high"]) == ("reproduced", 0.87, 0.91)
    assert "within our interval" in row["reason"]
    narrow = THREE | estimates(0.87, 0.895, 3)
    assert verdict(narrow) == "not reproduced"
    assert verdict(narrow, tolerance={"value": 0.006, "reason": "rounded"}) == "reproduced"


@pytest.mark.parametrize("column", ["perplexity", "word_perplexity", "mean_squared_error"])
def test_a_metric_compared_by_its_logarithm_has_the_geometric_mean_of_the_tables(
    column: str,
) -> None:
    """That of 4 and 9 is 6, as (4 * 9)^(1/2) is; their plain mean is 6.5."""
    claim = {"column": column, "unit": column, "published": 6.0}
    row = decide(by_seed(column, 4.0, 9.0), **claim)
    assert row["ours"] == pytest.approx(6.0, rel=1e-12)
    assert row["verdict"] == "reproduced"


def test_a_sum_of_columns_and_other_metrics_have_the_plain_mean() -> None:
    frames = by_seed("perplexity", 4.0, 9.0)
    frames["runs"]["eval_loss_nats"] = [1.0, 3.0]
    loss = decide(frames, column="eval_loss_nats", unit="nats", published=2.0)
    assert loss["ours"] == 2.0
    both = decide(frames, column=["perplexity", "eval_loss_nats"], unit="sum", published=8.5)
    assert both["ours"] == 8.5


def test_an_interval_of_other_seeds_is_not_taken() -> None:
    assert math.isnan(decide(THREE | estimates(0.87, 0.91, 2))["low"])


def test_one_seed_has_no_interval_and_says_so() -> None:
    row = decide(runs(0.895), tolerance={"value": 0.01, "reason": "one standard error"})
    assert (row["verdict"], row["tolerance"]) == ("reproduced", 0.01)
    assert "one seed: no interval" in row["reason"]
    assert "tolerance: one standard error" in row["note"]
    assert math.isnan(row["low"])


# Which runs decide --------------------------------------------------------------------------------


def test_other_settings_decide_nothing() -> None:
    row = decide(runs(0.9, learning_rate=1.0e-3))
    assert row["verdict"] == "not yet run"
    assert row["reason"] == "ours has learning_rate 0.001, the claim 0.0002"
    row = decide(runs(0.9, updates=94))
    assert row["verdict"] == "not yet run"
    assert row["reason"] == "ours has updates 94, the claim about 100"
    assert verdict(runs(0.9), settings={"epochs": 3}) == "not yet run"


def evaluated(score: float) -> dict:
    """A table of evaluations with one row, which has no setting of the run's."""
    row = {**CELL, "seed": 0, "status": "ok", "device": "cuda", "evaluation": "gsm8k"}
    return {"evaluations": pd.DataFrame([{**row, "metric": "m", "score_fraction": score}])}


def test_an_evaluation_decides_if_its_training_run_has_the_claims_settings() -> None:
    claim = {
        "table": "evaluations",
        "column": "score_fraction",
        "settings": {"evaluation": "gsm8k", "metric": "m", "learning_rate": 2.0e-4},
    }
    trained = {**evaluated(0.9), **runs(0.5)}
    assert verdict(trained, **claim) == "reproduced"
    row = decide({**evaluated(0.9), **runs(0.5, learning_rate=1.0e-3)}, **claim)
    assert row["verdict"] == "not yet run"
    assert row["reason"] == "ours has learning_rate 0.001, the claim 0.0002"
    assert verdict(evaluated(0.9), **claim) == "not yet run"  # no table of runs
    other = {**claim, "settings": {**claim["settings"], "evaluation": "mmlu"}}
    assert verdict(trained, **other) == "not yet run"


def test_updates_may_be_a_little_fewer_than_the_claims() -> None:
    assert verdict(runs(0.9, updates=96)) == "reproduced"


def test_seeds_that_failed_are_named() -> None:
    assert verdict(runs(None, None)) == "diverged"
    row = decide(runs(0.9, None))
    assert row["verdict"] == "reproduced"
    assert "1 of 2 seeds: diverged" in row["reason"]


def test_runs_of_several_devices_are_refused_by_name() -> None:
    frames = runs(0.9, 0.9)
    frames["runs"]["device"] = ["cpu", "cuda"]
    row = decide(frames)
    assert row["verdict"] == "not comparable"
    assert row["reason"].endswith("cpu, cuda")
    assert math.isnan(row["ours"])


def test_several_rows_that_are_not_one_for_each_seed_are_an_error() -> None:
    frames = runs(0.9, 0.9)
    frames["runs"]["seed"] = 0
    message = r"one.settings: got 2 rows, allowed: settings that leave one row a seed"
    with pytest.raises(ValueError, match=message):
        decide(frames)


# Claims on ratios, sums and differences -----------------------------------------------------------

BYTES = {"table": "memory", "column": "a_bytes", "settings": {}}
MEMORY = {
    "memory": pd.DataFrame([
        {**CELL, "rank": 2, "status": "ok", "a_bytes": 25.0, "b_bytes": 10.0},
        {**CELL, "rank": 4, "status": "ok", "a_bytes": 100.0, "b_bytes": 10.0},
    ])
}  # fmt: skip
AGAINST_R4 = {"cell": {"rank": 4}}


@pytest.mark.parametrize("changes", [
    {"against": AGAINST_R4, "compare": "ratio", "published": 0.25},
    {"against": AGAINST_R4, "compare": "saving", "per": 0.01, "published": 75},
    {"against": AGAINST_R4, "compare": "difference", "published": -75},
    {"against": {"column": "b_bytes"}, "compare": "ratio", "published": 2.5},
    {"column": ["a_bytes", "b_bytes"], "per": 7, "published": 5},
], ids=lambda changes: changes.get("compare", "sum"))  # fmt: skip
def test_ours_is_compared_or_added_up_first(changes: dict) -> None:
    assert verdict(MEMORY, **{**BYTES, **changes}) == "reproduced"
    wrong = {**changes, "published": changes["published"] + 0.1}
    assert verdict(MEMORY, **{**BYTES, **wrong}) == "not reproduced"


def test_without_the_other_number_nothing_is_decided() -> None:
    against = {"against": {"cell": {"rank": 8}}, "compare": "ratio", "published": 1}
    assert verdict(MEMORY, **BYTES, **against) == "not yet run"


def test_a_tolerance_may_be_a_fraction_of_the_published_number() -> None:
    tolerance = {"fraction": 0.1, "reason": "r"}
    assert decide(MEMORY, **BYTES, published=25, tolerance=tolerance)["tolerance"] == 2.5


# Corrected readings and claims without a comparison -----------------------------------------------


def test_a_corrected_number_is_judged_beside_the_published_one() -> None:
    row = decide(runs(0.9), published=90, corrected=0.9, reading="it is in percent")
    assert (row["verdict"], row["corrected"]) == ("not reproduced", 0.9)
    assert row["reason"].endswith("corrected reading: it is in percent; 0.9: reproduced")
    row = decide(runs(0.9), published=90, corrected=0.8, reading="it is in percent")
    assert "0.8: not reproduced; off by 0.1 (+12 %)" in row["reason"]


def test_the_published_number_may_be_one_of_a_corrected_cell() -> None:
    both = pd.concat([runs(0.9)["runs"], runs(0.7)["runs"].assign(rank=4)])
    corrected = {"corrected_cell": {"rank": 4}, "reading": "its rank is 4"}
    row = decide({"runs": both}, published=0.7, **corrected)
    assert (row["verdict"], row["corrected"], row["ours"]) == ("not reproduced", 0.7, 0.9)
    assert row["reason"].endswith("its rank is 4; 0.7: reproduced")


def test_a_number_that_cannot_be_compared_says_why_and_still_shows_ours() -> None:
    why = "the published run had another split; the same would do"
    row = decide(runs(0.9), not_comparable=why)
    assert (row["verdict"], row["ours"], row["command"]) == ("not comparable", 0.9, "")
    assert row["reason"] == why


def test_a_claim_that_lacks_something_names_it_and_its_needs() -> None:
    nothing = dict.fromkeys(("table", "column", "cell"))
    wanted = {"gpu": "80 GB", "hub": True, "hours": 3}
    row = decide(**nothing, lacks="a dataset entry", needs=wanted)
    assert (row["verdict"], row["reason"]) == ("not yet run", "lacks a dataset entry")
    assert row["needs"] == "GPU (80 GB), hub, 3 h"


def test_every_registered_claim_is_decided_or_says_why_not() -> None:
    for name, claim in REGISTRY.items():
        reason = claim.get("not_comparable", claim.get("lacks", ""))
        assert "table" in claim or len(reason) >= 10, name
        assert not claim["tolerance"] or "tolerance: " in claim["note"], name


# Bad input ----------------------------------------------------------------------------------------

WRONG = {
    "misspelt key": ({"tolerence": 1}, ["one", "got 'tolerence'", "nearest: 'tolerance'"]),
    "no unit": ({"unit": None}, ["one.unit", "got 'nothing'", "of the published number"]),
    "text for a number": ({"published": "0.9"}, ["one.published", "got '0.9'", "allowed: a number"]),
    "unknown table": ({"table": "memroy"}, ["one.table", "got 'memroy'", "nearest: 'memory'"]),
    "unknown system": ({"system": "F"}, ["one.system", "got 'F'", "A, B, C"]),
    "tolerance without a reason": ({"tolerance": {"value": 0.1}}, ["one.tolerance.reason", "got 'nothing'"]),
    "two tolerances": ({"tolerance": {"value": 0.1, "fraction": 0.1, "reason": "r"}}, ["one.tolerance", "a value in `unit` or a fraction"]),
    "an empty reason": ({"not_comparable": "no"}, ["one.not_comparable", "got 'no'", "why a fair comparison is not possible"]),
    "two numbers": ({"values": {4: 1}}, ["one: got 'both'", "exactly one of published and values"]),
    "no number": ({"published": None}, ["one: got 'neither'", "exactly one of published and values"]),
    "a table without its cell": ({"cell": None}, ["one: got 'table, column'", "table, column and cell together"]),
    "nothing that decides": ({"table": None, "column": None, "cell": None}, ["one: got 'no table'", "not_comparable or lacks"]),
    "corrected without a reading": ({"corrected": 1}, ["one.reading", "got 'nothing'", "what the number of corrected means"]),
    "against without compare": ({"against": {"column": "seed"}}, ["one: got 'against'", "against and compare together"]),
    "unknown model": ({"cell": {**CELL, "model": "tinny"}}, ["one.cell.model", "got 'tinny'", "nearest: 'tiny'"]),
    "no method": ({"cell": {"model": "tiny", "dataset": "sst2"}}, ["one.cell.method", "got 'nothing'"]),
    "unknown method against": ({"against": {"cell": {"method": "ful"}}, "compare": "ratio"}, ["one.against.method", "nearest: 'full'"]),
    "unknown corrected dataset": ({"corrected_cell": {"dataset": "sst"}, "reading": "r"}, ["one.corrected_cell.dataset", "nearest: 'sst2'"]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_bad_input_is_one_sentence(what: str) -> None:
    changes, wanted = WRONG[what]
    with pytest.raises(ConfigError) as caught:
        decide(**changes)
    message = str(caught.value)
    for part in ("config/claims.yaml: ", "allowed: ", *wanted):
        assert part in message
    assert "\n" not in message


def test_an_included_study_that_is_missing_is_named() -> None:
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    message = r"config/shape.yaml: file: got 'nothing', allowed: a YAML file"
    with pytest.raises(ConfigError, match=message):
        Plan({**study, "include": ["config/shape.yaml"]}, ROOT)
