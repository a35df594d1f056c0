"""Verdicts on published numbers: the rule that computes them, and what a registered claim must hold."""

import math

import pandas as pd
import pytest
import yaml

from helpers.repository import ROOT
from rankwise.analysis.claim_verdicts import judge
from rankwise.core import config
from rankwise.core.config import ConfigError
from rankwise.study import claims
from rankwise.study.plan import Plan
from study.test_claims import CELL, LIBRARY, REGISTRY

SCHEMA = ROOT / "src/rankwise/core/schema/claims.schema.yaml"


# The rule -----------------------------------------------------------------------------------------------------------------

FAMILY = {
    "system": "A", "title": "t", "definition": "d", "unit": "fraction", "source": "s", "table": "runs",
    "column": "accuracy_fraction", "cell": CELL, "settings": {"learning_rate": 2.0e-4, "updates": 100}, "published": 0.9,
}  # fmt: skip


def decide(frames: dict[str, pd.DataFrame] | None = None, **changes: object) -> pd.Series:
    """The row of one claim; keys changed to None are left out."""
    family = {key: value for key, value in {**FAMILY, **changes}.items() if value is not None}
    checked = config.check({"one": family}, SCHEMA, claims.FILE)
    claims.check({**LIBRARY, "claims": checked})
    return judge(claims.expand(checked), frames or {}).iloc[0]


def runs(*accuracies: float | None, **columns: object) -> dict[str, pd.DataFrame]:
    rows = [
        {**CELL, "seed": seed, "status": "ok" if value is not None else "diverged", "device": "cuda", "learning_rate": 2.0e-4,
         "updates": 98, "accuracy_fraction": value, **columns}
        for seed, value in enumerate(accuracies)
    ]  # fmt: skip
    return {"runs": pd.DataFrame(rows)}


def estimates(low: float, high: float, seeds: int) -> dict[str, pd.DataFrame]:
    row = {
        **CELL,
        "metric": "accuracy_fraction",
        "seeds": seeds,
        "estimate": (low + high) / 2,
        "low": low,
        "high": high,
    }
    return {"estimates": pd.DataFrame([row])}


def test_the_mean_over_seeds_and_its_interval_decide() -> None:
    row = decide(runs(0.86, 0.90, 0.91))
    assert row["ours"] == pytest.approx(0.89) and math.isnan(row["low"])
    assert (row["verdict"], "mean of 3 seeds" in row["reason"]) == ("not reproduced", True)
    row = decide(runs(0.86, 0.90, 0.91) | estimates(0.87, 0.91, 3))
    assert (row["verdict"], row["low"], row["high"]) == ("reproduced", 0.87, 0.91)
    assert "within our interval" in row["reason"]
    assert decide(runs(0.86, 0.90, 0.91) | estimates(0.87, 0.895, 3))["verdict"] == "not reproduced"
    slack = {"value": 0.006, "reason": "rounded"}
    assert (
        decide(runs(0.86, 0.90, 0.91) | estimates(0.87, 0.895, 3), tolerance=slack)["verdict"]
        == "reproduced"
    )
    assert math.isnan(decide(runs(0.86, 0.90, 0.91) | estimates(0.87, 0.91, 2))["low"]), (
        "an interval of other seeds"
    )


def test_one_seed_has_no_interval_and_says_so() -> None:
    row = decide(runs(0.895), tolerance={"value": 0.01, "reason": "one standard error"})
    assert (row["verdict"], row["tolerance"]) == ("reproduced", 0.01)
    assert (
        "one seed: no interval" in row["reason"] and "tolerance: one standard error" in row["note"]
    )
    assert math.isnan(row["low"])


def test_other_settings_decide_nothing() -> None:
    row = decide(runs(0.9, learning_rate=1.0e-3))
    assert (row["verdict"], row["reason"]) == (
        "not yet run",
        "ours has learning_rate 0.001, the claim 0.0002",
    )
    row = decide(runs(0.9, updates=94))
    assert (row["verdict"], row["reason"]) == (
        "not yet run",
        "ours has updates 94, the claim about 100",
    )
    assert decide(runs(0.9))["verdict"] == "reproduced"
    assert decide(runs(0.9), settings={"epochs": 3})["verdict"] == "not yet run"


def test_failed_seeds_are_said() -> None:
    assert decide(runs(None, None))["verdict"] == "diverged"
    row = decide(runs(0.9, None))
    assert row["verdict"] == "reproduced" and "1 of 2 seeds: diverged" in row["reason"]


def test_runs_of_several_devices_are_refused_by_name() -> None:
    frames = runs(0.9, 0.9)
    frames["runs"]["device"] = ["cpu", "cuda"]
    row = decide(frames)
    assert row["verdict"] == "not comparable" and row["reason"].endswith("cpu, cuda")
    assert math.isnan(row["ours"])


def test_several_rows_that_are_no_seeds_are_an_error() -> None:
    frames = runs(0.9, 0.9)
    frames["runs"]["seed"] = 0
    with pytest.raises(
        ValueError, match=r"one.settings: got 2 rows, allowed: what leaves one row a seed"
    ):
        decide(frames)


def test_ours_is_compared_first() -> None:
    rows = [
        {**CELL, "rank": rank, "status": "ok", "a_bytes": size, "b_bytes": 10.0}
        for rank, size in ((2, 25.0), (4, 100.0))
    ]
    frames = {"memory": pd.DataFrame(rows)}
    shared = {"table": "memory", "column": "a_bytes", "settings": {}}
    against = {"cell": {"rank": 4}}
    assert (
        decide(frames, **shared, against=against, compare="ratio", published=0.25)["verdict"]
        == "reproduced"
    )
    assert (
        decide(frames, **shared, against=against, compare="saving", per=0.01, published=75)[
            "verdict"
        ]
        == "reproduced"
    )
    assert (
        decide(frames, **shared, against=against, compare="difference", published=-75)["verdict"]
        == "reproduced"
    )
    assert (
        decide(frames, **shared, against={"column": "b_bytes"}, compare="ratio", published=2.5)[
            "verdict"
        ]
        == "reproduced"
    )
    assert (
        decide(frames, **{**shared, "column": ["a_bytes", "b_bytes"]}, per=7, published=5)[
            "verdict"
        ]
        == "reproduced"
    )
    missing = decide(frames, **shared, against={"cell": {"rank": 8}}, compare="ratio", published=1)
    assert missing["verdict"] == "not yet run"
    assert (
        decide(frames, **shared, published=25, tolerance={"fraction": 0.1, "reason": "r"})[
            "tolerance"
        ]
        == 2.5
    )


def test_a_corrected_reading_is_judged_beside_the_published_number() -> None:
    row = decide(runs(0.9), published=90, corrected=0.9, reading="it is in percent")
    assert (row["verdict"], row["corrected"]) == ("not reproduced", 0.9)
    assert row["reason"].endswith("corrected reading: it is in percent; 0.9: reproduced")
    row = decide(runs(0.9), published=90, corrected=0.8, reading="it is in percent")
    assert "0.8: not reproduced; off by 0.1 (+12 %)" in row["reason"]
    two = pd.concat([runs(0.9)["runs"], runs(0.7)["runs"].assign(rank=4)])
    row = decide({"runs": two}, published=0.7, corrected_cell={"rank": 4}, reading="its rank is 4")
    assert (row["verdict"], row["corrected"], row["ours"]) == ("not reproduced", 0.7, 0.9)
    assert row["reason"].endswith("its rank is 4; 0.7: reproduced")


def test_what_cannot_be_compared_says_why_and_still_shows_ours() -> None:
    row = decide(runs(0.9), not_comparable="the published run had another split; the same would do")
    assert (row["verdict"], row["ours"], row["command"]) == ("not comparable", 0.9, "")
    assert row["reason"] == "the published run had another split; the same would do"
    row = decide(
        table=None,
        column=None,
        cell=None,
        lacks="a dataset entry",
        needs={"gpu": "80 GB", "hub": True, "hours": 3},
    )
    assert (row["verdict"], row["reason"], row["needs"]) == (
        "not yet run",
        "lacks a dataset entry",
        "GPU (80 GB), hub, 3 h",
    )
    for name, claim in REGISTRY.items():
        assert "table" in claim or len(claim.get("not_comparable", claim.get("lacks", ""))) >= 10, (
            name
        )
        assert not claim["tolerance"] or "tolerance: " in claim["note"], name


# Bad input ----------------------------------------------------------------------------------------------------------------

WRONG = {
    "misspelt key": ({"tolerence": 1}, ["one", "got 'tolerence'", "nearest: 'tolerance'"]),
    "no unit": ({"unit": None}, ["one.unit", "got 'nothing'", "of the published number"]),
    "text for a number": ({"published": "0.9"}, ["one.published", "got '0.9'", "allowed: a number"]),
    "unknown table": ({"table": "memroy"}, ["one.table", "got 'memroy'", "nearest: 'memory'"]),
    "unknown system": ({"system": "F"}, ["one.system", "got 'F'", "A, B, C"]),
    "tolerance without a reason": ({"tolerance": {"value": 0.1}}, ["one.tolerance.reason", "got 'nothing'"]),
    "two tolerances": ({"tolerance": {"value": 0.1, "fraction": 0.1, "reason": "r"}}, ["one.tolerance", "a value in `unit` or a fraction"]),
    "an empty reason": ({"not_comparable": "no"}, ["one.not_comparable", "got 'no'", "why no honest comparison"]),
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
def test_one_sentence(what: str) -> None:
    changes, wanted = WRONG[what]
    with pytest.raises(ConfigError) as caught:
        decide(**changes)
    message = str(caught.value)
    assert all(part in message for part in ("config/claims.yaml: ", "allowed: ", *wanted)), message
    assert "\n" not in message


def test_an_included_study_that_is_not_there() -> None:
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    with pytest.raises(
        ConfigError, match=r"config/shape.yaml: file: got 'nothing', allowed: a YAML file"
    ):
        Plan({**study, "include": ["config/shape.yaml"]}, ROOT)
