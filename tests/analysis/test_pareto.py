"""Fronts and views at equal cost: what is dominated is not on the front, how sure that is, and what a budget buys."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.planted import MARGINS, Scores, study, tables_of
from rankwise.analysis import tables
from rankwise.analysis.evidence import evidence
from rankwise.analysis.pareto import views


def written(
    folder: Path, curves: Scores, prices: dict[str, float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fronts and views of a study by the FLOPs of a step (method -> price), through the files."""
    runs, examples = tables_of(study(folder, curves))
    tables.write(runs, folder / "runs")
    tables.write_parquet(examples, folder / "examples.parquet")
    evidence({"equivalence": MARGINS}, folder / "estimates.csv")
    flops = []
    for method, rank in curves:
        if method in prices:
            cell = {"model": "m", "dataset": "d", "method": method, "rank": rank}
            flops.append({**cell, "status": "ok", "step_flops": prices[method]})
    tables.write(pd.DataFrame(flops), folder / "flops")
    views({"tables": ["runs", "estimates", "comparisons", "flops"]}, folder / "views.csv")
    found = [tables.read(folder / f"{name}.csv") for name in ("fronts", "views")]
    return tuple(frame[frame["cost"] == "step_flops"] for frame in found)


def scores(
    accuracy: float, seeds: int = 3, examples: int = 1000, noise: float = 0.002
) -> list[np.ndarray]:
    """0/1 scores of seeds that are right on the same examples, but for a little noise."""
    chance = np.random.default_rng(int(1e6 * accuracy))
    place = np.random.default_rng(0).random(examples)
    found = []
    for _ in range(seeds):
        is_flipped = chance.random(examples) < noise
        found.append(((place < accuracy) ^ is_flipped).astype(float))
    return found


def test_a_dominated_curve_is_off_the_front_and_the_others_are_surely_on_it(tmp_path: Path) -> None:
    curves = {("full", 0): scores(0.9), ("lora", 4): scores(0.8), ("rsvd", 4): scores(0.7)}
    front, _ = written(tmp_path, curves, {"full": 30, "lora": 10, "rsvd": 20})
    assert list(front["on_front"]) == [True, True, False]
    assert list(front["front_probability"]) == [1.0, 1.0, 0.0]
    assert list(front["amount"]) == [30, 10, 20]


def test_people_read_whether_a_curve_is_on_the_front(tmp_path: Path) -> None:
    curves = {("full", 0): scores(0.9), ("lora", 4): scores(0.95)}
    written(tmp_path, curves, {"full": 30, "lora": 10})
    lines = (tmp_path / "fronts.md").read_text().splitlines()
    rows = [line for line in lines if "step_flops" in line]
    assert ["False" in row for row in rows] == ["full" in row for row in rows]
    assert len(rows) == 2


def test_curves_that_noise_could_exchange_share_the_front_in_some_draws(tmp_path: Path) -> None:
    """And the same data give the same shares."""
    right = np.random.default_rng(1).random((2, 3, 400)) < 0.8
    curves = {("full", 0): right[0], ("lora", 4): right[1]}
    front, _ = written(tmp_path / "one", curves, {"full": 10, "lora": 10})
    assert front["on_front"].sum() == 1
    assert front["front_probability"].between(0.02, 0.98).all()
    assert front["front_probability"].sum() >= 1, "at least one of them in every draw"
    written(tmp_path / "again", curves, {"full": 10, "lora": 10})
    one, again = ((tmp_path / name / "fronts.csv").read_bytes() for name in ("one", "again"))
    assert one == again


def test_a_lower_perplexity_is_on_the_front(tmp_path: Path) -> None:
    losses = np.random.default_rng(2).gamma(4, 0.5, (3, 200))
    curves = {("full", 0): losses, ("lora", 4): losses + 0.5}
    front, view = written(tmp_path, curves, {"full": 10, "lora": 20})
    assert list(front["on_front"]) == [True, False]
    assert list(view["method"]) == ["full", "full"]


def test_curves_without_a_cost_or_with_failed_runs_are_named_and_not_ranked(tmp_path: Path) -> None:
    curves = {
        ("full", 0): scores(0.9),
        ("lora", 4): scores(0.8),
        ("rsvd", 4): scores(0.99),
        ("head_only", 0): [*scores(0.95, seeds=2), "diverged"],
    }
    front, view = written(tmp_path, curves, {"full": 30, "lora": 10, "head_only": 1})
    assert list(front["on_front"].dropna()) == [True, True]
    assert list(front["note"].dropna()) == ["no step_flops: not measured", "seed 2 diverged"]
    assert set(view["method"]) == {"full", "lora"}


def test_a_curve_whose_runs_are_all_tainted_has_no_time_and_the_note_says_so(
    tmp_path: Path,
) -> None:
    curves = {("full", 0): scores(0.9), ("lora", 4): scores(0.8), ("rsvd", 4): scores(0.99)}
    written(tmp_path, curves, {"full": 30, "lora": 10})
    runs = tables.read(tmp_path / "runs.csv")
    is_tainted = runs["method"] == "rsvd"
    runs = runs.assign(step_time_s=1.0, taint=is_tainted.map({True: "shared", False: None}))
    tables.write(runs, tmp_path / "runs")
    views({"tables": ["runs", "estimates", "comparisons"]}, tmp_path / "views.csv")
    front = tables.read(tmp_path / "fronts.csv").query("cost == 'step_time_s'")
    notes = dict(zip(front["method"], front["note"].fillna(""), strict=True))
    reason = "no step_time_s: not measured, or tainted"
    assert notes == {"full": "", "lora": "", "rsvd": reason}


def test_one_seed_has_no_probability(tmp_path: Path) -> None:
    curves = {("full", 0): scores(0.9, 1), ("lora", 4): scores(0.8, 1)}
    front, _ = written(tmp_path, curves, {"full": 30, "lora": 10})
    assert list(front["on_front"]) == [True, True]
    assert front["front_probability"].isna().all()
    assert set(front["note"]) == {"one seed: no interval"}


def test_a_budget_buys_the_best_that_costs_no_more_and_names_what_is_tied(tmp_path: Path) -> None:
    levels = {("full", 0): 0.9, ("lora", 4): 0.899, ("rsvd", 4): 0.7}
    curves = {curve: scores(accuracy, 4, 4000) for curve, accuracy in levels.items()}
    _, view = written(tmp_path, curves, {"full": 30, "lora": 20, "rsvd": 10})
    assert list(view["budget"]) == [10, 20, 30]
    assert list(view["method"]) == ["rsvd", "lora", "full"]
    assert list(view["tied"].fillna("")) == ["", "", "lora r4"]
    assert view["undecided"].isna().all()
    means = [np.mean(curves[curve]) for curve in (("rsvd", 4), ("lora", 4), ("full", 0))]
    assert list(view["estimate"]) == pytest.approx(means)
