"""Curves that may be trained too little: each rule beside histories and counts worked out by hand."""

import math
from pathlib import Path

import pandas as pd
import pytest

from helpers.planted import request, write
from rankwise.analysis import flags, tables, tidy
from rankwise.analysis.costs import Costs
from rankwise.analysis.summary_notes import notes


def flags_of(folder: Path, losses: list[float] = (), **found: object) -> list[str]:
    """The flags that the table of runs has for one run; evaluated every 10 updates."""
    history = [
        {"epoch": number, "update": 10 * number, "selection_loss_nats": loss}
        for number, loss in enumerate(losses)
    ]
    asked = {**request("lora", 4, 0), "model": {"architecture": {"vocab_size": 100}}}
    planned = write(folder / "run.json", asked, history=history, split="test", **found)
    frame = tidy.collect([planned])
    return frame["flags"][0].split("; ") if "flags" in frame else []


# Loss still falling -------------------------------------------------------------------------------


@pytest.mark.parametrize(("losses", "is_falling"), [
    # Of a fall of 1.0 in 40 updates, those after 30 brought 0.06, then 0.04: the limit is 0.05.
    ([2.0, 1.5, 1.2, 1.06, 1.00], True),
    ([2.0, 1.5, 1.2, 1.04, 1.00], False),
    # The last quarter begins between two evaluations: at update 22.5 of 30 the loss is 1.15.
    ([2.0, 1.4, 1.2, 1.00], True),
    ([2.0, 1.4, 1.05, 1.00], False),  # 1.0375 there
    # The lowest loss is not the last one.
    ([2.0, 1.5, 0.9, 1.2, 1.0], False),
    ([2.0, 1.5, 1.0, 1.0, 1.0], False),
    # Too few evaluations to tell.
    ([2.0, 1.5, 1.0], False),
    ([2.0], False),
    ([], False),
])  # fmt: skip
def test_a_loss_that_falls_to_the_end_is_flagged(
    losses: list[float], is_falling: bool, tmp_path: Path
) -> None:
    assert flags_of(tmp_path, losses, metrics={}) == (["loss still falling"] if is_falling else [])


def test_a_run_that_failed_has_no_flag(tmp_path: Path) -> None:
    assert flags_of(tmp_path, [4, 3, 2, 1], status="diverged", reason="loss nan") == []


def test_a_method_that_trains_nothing_has_no_flag(tmp_path: Path) -> None:
    """At chance level, it is the base model as it is."""
    found = {"metrics": {"accuracy_fraction": 0.6}, "split": "test", **classes(a=60, b=40)}
    for rate, expected in ((0, False), (1e-3, True)):
        asked = request("frozen", 0, 0)
        asked["method"] = {**asked["method"], "learning_rate": rate}
        frame = tidy.collect([write(tmp_path / f"{rate}", asked, **found)])
        assert ("flags" in frame) is expected


# Chance level -------------------------------------------------------------------------------------


def classes(**rows: int) -> dict:
    """What a run records of the classes of its reported split, and of another one."""
    of_test = [{"split": "test", "class": name, "rows": count} for name, count in rows.items()]
    return {"data": {"classes": [{"split": "train", "class": "a", "rows": 999}, *of_test]}}


@pytest.mark.parametrize(("right", "is_at_chance"), [
    # Of 100 rows, 60 of the most frequent class. Binomial(100, 0.6): P(X <= 71) = 0.9916,
    # P(X <= 70) = 0.9852, so 71 right answers are no more than luck at 99 %, and 72 are more.
    (0.60, True), (0.71, True), (0.72, False), (0.20, True),
])  # fmt: skip
def test_an_accuracy_of_the_most_frequent_class_is_chance(
    right: float, is_at_chance: bool, tmp_path: Path
) -> None:
    found = flags_of(tmp_path, metrics={"accuracy_fraction": right}, **classes(a=60, b=40))
    assert found == (["chance level"] if is_at_chance else [])


def test_the_loss_of_a_uniform_guess_is_chance(tmp_path: Path) -> None:
    """The model has 100 tokens: ln 100 = 4.605."""
    for loss, expected in ((4.61, ["chance level"]), (4.60, [])):
        metrics = {"perplexity": math.exp(loss), "eval_loss_nats": loss}
        assert flags_of(tmp_path, metrics=metrics) == expected


def test_without_counts_or_tokens_nothing_is_said(tmp_path: Path) -> None:
    assert flags_of(tmp_path, metrics={"accuracy_fraction": 0.5}) == []


# Curves -------------------------------------------------------------------------------------------

CURVE = {"model": "m", "dataset": "d", "method": "lora", "rank": 4}


def runs(*flags_by_seed: str | None) -> pd.DataFrame:
    rows = [{**CURVE, "seed": seed, "status": "ok"} for seed in range(len(flags_by_seed))]
    return pd.DataFrame(rows).assign(flags=list(flags_by_seed))


def search(rates: list[float], chosen: float) -> pd.DataFrame:
    rows = [{**CURVE, "learning_rate": rate, "selected": rate == chosen} for rate in rates]
    return pd.DataFrame(rows)


def test_a_curve_says_how_many_of_its_runs_are_flagged() -> None:
    frame = runs("loss still falling; chance level", None, "loss still falling")
    failed = pd.DataFrame([{**CURVE, "seed": 3, "status": "diverged", "flags": None}])
    found = flags.of_curves(pd.concat([frame, failed]), None)
    assert found["m", "d", "lora", 4] == "loss still falling (2 of 3), chance level (1 of 3)"
    assert flags.of_curves(runs(None), None).isna().all()
    assert flags.of_curves(runs(None).drop(columns="flags"), None).isna().all()


def test_chance_level_comes_with_the_learning_rate() -> None:
    frame = runs("chance level", None).assign(learning_rate=2e-4)
    found = flags.of_curves(frame, None)
    assert found["m", "d", "lora", 4] == "chance level (1 of 2, learning rate 0.0002)"


@pytest.mark.parametrize(("rates", "chosen", "expected"), [
    ([0.1, 0.01, 0.1, 0.3], 0.3, "best rate at the end of the grid (0.3, the highest of 3)"),
    ([0.1, 0.01, 0.3], 0.01, "best rate at the end of the grid (0.01, the lowest of 3)"),
    ([0.1, 0.01, 0.3], 0.1, None),
    ([0.1, 0.1], 0.1, None),
    ([0.1, 0.2], 0.7, None),
])  # fmt: skip
def test_a_rate_at_the_end_of_the_grid_is_flagged(
    rates: list[float], chosen: float, expected: str | None
) -> None:
    assert flags.of_curves(runs(None), search(rates, chosen))["m", "d", "lora", 4] == expected


def test_notes_name_the_curves_and_the_rules() -> None:
    frame = pd.DataFrame([{**CURVE, "method": "LoRA", "n": 1, "best": "best", "status": "ok"}])
    frame = frame.assign(warning=None, flags="loss still falling (1 of 1)", updates=10)
    priced = Costs(pd.DataFrame(), {})
    note = notes(frame, priced, {})[2]
    assert note.startswith("Perhaps trained too little: m/d LoRA r4: loss still falling (1 of 1).")
    assert "more than 5 % of its whole fall" in note
    assert "learning rate" not in note
    assert tables.formatted(frame, str, str).columns.tolist()[-1] == "status"
    assert len(notes(frame.assign(flags=None), priced, {})) == 2


def test_an_error_of_a_regression_is_no_loss_of_tokens(tmp_path: Path) -> None:
    """Its loss may be above the logarithm of the vocabulary without being at chance."""
    asked = {**request("lora", 4, 0), "model": {"architecture": {"vocab_size": 100}}}
    regression = {**asked, "dataset": {"task": "regression", "label": "grade"}}
    for case, expected in ((asked, ["chance level"]), (regression, [])):
        stored = {"request": case, "status": "ok", "metrics": {"eval_loss_nats": 9.0}}
        assert flags.of_run(stored) == expected
