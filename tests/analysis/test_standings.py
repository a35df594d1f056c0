"""Curves beside their reference: which one it is, ratios from its side, costs as shares of its own."""

import math

import pandas as pd
import pytest

from helpers.planted import MARGINS, Scores, study, tables_of
from rankwise.analysis.evidence import COMPARISON, comparisons, estimates
from rankwise.analysis.scores import groups
from rankwise.analysis.standings import Standings, standings

GROUP = {"model": "m", "dataset": "d"}
Frames = dict[str, pd.DataFrame]


def estimates_of(values: dict[tuple, float], metric: str, **notes: str) -> pd.DataFrame:
    """Estimates of three seeds; a value that is nan has no run that ended well."""
    rows = []
    for (method, rank), value in values.items():
        seeds = 0 if math.isnan(value) else 3
        ends = {"low": value - 0.1, "high": value + 0.1}
        curve = {**GROUP, "metric": metric, "method": method, "rank": rank, "seeds": seeds}
        rows.append({**curve, "estimate": value, **ends, "note": notes.get(method)})
    return pd.DataFrame(rows)


def pair(a: tuple, b: tuple, ratios: tuple, verdict: str, **columns: object) -> dict:
    names = {"method_a": a[0], "rank_a": a[1], "method_b": b[0], "rank_b": b[1]}
    numbers = dict(zip(("ratio", "ratio_low", "ratio_high"), ratios, strict=True))
    rest = {"seeds": 3, "margin": 0.01, "seeds_needed": None, "note": None}
    return {**GROUP, **names, **numbers, "verdict": verdict, **rest, **columns}


def frames_of(values: dict[tuple, float], pairs: list[dict], metric: str, **notes: str) -> Frames:
    rows = []
    for method, rank in values:
        run = {**GROUP, "method": method, "rank": rank, "seed": 0, "status": "ok"}
        rows.append({**run, "device": "cpu", "trainable_parameters": 100 + rank})
    return {
        "runs": pd.DataFrame(rows),
        "estimates": estimates_of(values, metric, **notes),
        "comparisons": pd.DataFrame(pairs, columns=COMPARISON),
    }


FULL, LORA, RSVD = ("full", 0), ("lora", 8), ("rsvd", 2)
VALUES = {RSVD: 0.6, FULL: 0.8, LORA: 0.9}
PAIRS = [
    pair(RSVD, FULL, (0.75, 0.5, 0.8), "b better"),
    pair(RSVD, LORA, (0.667, 0.5, 0.7), "b better"),
    pair(FULL, LORA, (0.8, 0.5, 1.25), "undecided", seeds_needed=7),
]
ACCURACIES = frames_of(VALUES, PAIRS, "accuracy_fraction")


def of(frames: Frames, named: dict | None = None) -> Standings:
    return standings(frames, named)["m", "d"]


def names(group: Standings) -> list[tuple]:
    return [(curve.method, curve.rank) for curve in group.others]


# The reference ------------------------------------------------------------------------------------


def test_full_fine_tuning_is_the_reference_and_the_others_are_ranked() -> None:
    group = of(ACCURACIES)
    assert (group.reference.method, group.chosen) == ("full", "full")
    assert names(group) == [LORA, RSVD]
    assert group.reference.against is None
    assert group.margin == 0.01


def test_a_study_may_name_the_reference() -> None:
    group = of(ACCURACIES, {"method": "rsvd"})
    assert ((group.reference.method, group.reference.rank), group.chosen) == (RSVD, "named")
    two_ranks = frames_of({("lora", 2): 0.9, LORA: 0.7, FULL: 0.8}, [], "accuracy_fraction")
    assert of(two_ranks, {"method": "lora"}).reference.rank == 8
    assert of(two_ranks, {"method": "lora", "rank": 2}).reference.rank == 2


def test_a_variant_stands_for_its_method() -> None:
    values = {("lora", 8): 0.9, ("full@slow", 0): 0.7, ("full@fast", 0): 0.8}
    group = of(frames_of(values, [], "accuracy_fraction"))
    assert (group.reference.method, group.chosen) == ("full@fast", "full")
    assert of(frames_of(values, [], "accuracy_fraction"), {"method": "full@slow"}).chosen == "named"


def test_without_full_fine_tuning_it_is_the_best_curve() -> None:
    perplexities = frames_of({LORA: 12.0, RSVD: 11.0}, [], "perplexity")
    group = of(perplexities)
    assert ((group.reference.method, group.reference.rank), group.chosen) == (RSVD, "best")
    assert of(perplexities, {"method": "full"}).chosen == "best"


def test_curves_with_failed_runs_come_last_and_are_not_the_best() -> None:
    values = {LORA: 0.9, RSVD: 0.6, ("dora", 8): math.nan}
    frames = frames_of(
        values, [], "accuracy_fraction", lora="seed 1 diverged", dora="seed 0 failed"
    )
    group = of(frames)
    assert (group.reference.method, group.chosen) == ("rsvd", "best")
    assert names(group) == [LORA, ("dora", 8)]
    assert [curve.note for curve in group.others] == ["seed 1 diverged", "seed 0 failed"]


def test_one_seed_is_no_failure() -> None:
    frames = frames_of({LORA: 0.9}, [], "accuracy_fraction", lora="one seed: no interval")
    assert of(frames).reference.note == ""


def test_a_group_of_failures_has_no_standings() -> None:
    assert standings(frames_of({LORA: math.nan}, [], "accuracy_fraction")) == {}


# Against it ---------------------------------------------------------------------------------------


def test_ratios_and_verdicts_are_told_from_the_side_of_the_other_curve() -> None:
    lora, rsvd = (curve.against for curve in of(ACCURACIES).others)
    # full / lora is 0.8 [0.5, 1.25]; lora / full is the inverse.
    assert lora[:3] == pytest.approx((1.25, 0.8, 2.0))
    assert (lora.verdict, lora.seeds_needed, lora.reason) == ("undecided", 7, "")
    assert rsvd[:3] == pytest.approx((0.75, 0.5, 0.8))
    assert rsvd.verdict == "worse"
    against_rsvd = {
        curve.method: curve.against for curve in of(ACCURACIES, {"method": "rsvd"}).others
    }
    assert {method: against.verdict for method, against in against_rsvd.items()} == {
        "full": "better",
        "lora": "better",
    }


@pytest.mark.parametrize(("columns", "verdict", "reason"), [
    ({"note": "more than 50 seeds would be needed"}, "undecided", "more than 50 seeds would be needed"),
    ({"note": "lora: seed 1 diverged; examples too few, whatever the seeds"}, "undecided",
     "examples too few, whatever the seeds"),
    ({"seeds": 0}, "no pair", ""),
    ({"verdict": "tied"}, "tied", ""),
])  # fmt: skip
def test_what_no_number_of_seeds_decides_has_a_reason(
    columns: dict, verdict: str, reason: str
) -> None:
    row = pair(FULL, LORA, (0.8, 0.5, math.inf), "undecided")
    against = of(frames_of(VALUES, [{**row, **columns}], "accuracy_fraction")).others[0].against
    assert (against.verdict, against.reason, against.seeds_needed) == (verdict, reason, None)
    assert against.low == 0, "the inverse of a ratio without an end"


def test_the_verdicts_are_those_of_the_tables_of_evidence(tmp_path) -> None:
    """From scores: perplexities, where a lower one is better and a ratio above 1 is worse."""
    base = [[2.0, 2.5, 3.0, 2.2] * 20, [2.01, 2.5, 3.0, 2.2] * 20, [2.0, 2.51, 3.0, 2.2] * 20]
    worse = [[loss + 0.3 for loss in seed] for seed in base]
    curves: Scores = {("lora", 4): worse, ("full", 0): base}
    runs, examples = tables_of(study(tmp_path, curves))
    found = groups(runs, examples)
    frames = {
        "runs": runs,
        "estimates": estimates(found),
        "comparisons": comparisons(found, MARGINS),
    }
    against = of(frames).others[0].against
    assert against.verdict == "worse"
    assert against.ratio == pytest.approx(math.exp(0.3))
    assert 1 < against.low <= against.ratio <= against.high


# Costs and flags ----------------------------------------------------------------------------------


def test_costs_are_shares_of_the_references() -> None:
    memory = pd.DataFrame(
        [
            {**GROUP, "method": "full", "rank": 0, "status": "ok", "optimizer_state_bytes": 800},
            {**GROUP, "method": "lora", "rank": 8, "status": "ok", "optimizer_state_bytes": 200},
        ]
    ).assign(adapter_bytes=[0, 40])
    lora, rsvd = of({**ACCURACIES, "memory": memory}).others
    assert (lora.costs["optimizer_state_bytes"], lora.costs["adapter_bytes"]) == (200, 40)
    assert lora.shares["optimizer_state_bytes"] == 0.25
    assert lora.shares["trainable_parameters"] == 1.08
    assert "adapter_bytes" not in lora.shares, "the reference's is 0: nothing is a share of that"
    assert rsvd.shares == {"trainable_parameters": 1.02}


def test_flags_are_those_of_the_runs() -> None:
    runs = ACCURACIES["runs"].assign(flags=["chance level", None, None])
    flags = {curve.method: curve.flags for curve in of({**ACCURACIES, "runs": runs}).others}
    assert flags == {"lora": "", "rsvd": "chance level (1 of 1)"}
