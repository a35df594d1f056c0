"""Fronts and views at equal cost: what is dominated is not on the front, how sure that is, and what a budget buys."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.test_evidence import MARGINS, gathered, study
from rankwise.analysis import tables
from rankwise.analysis.evidence import evidence
from rankwise.analysis.pareto import views


def made(folder: Path, curves: dict, prices: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fronts and views of a study by the FLOPs of a step (method -> price), through the files."""
    runs, examples = gathered(study(folder, curves))
    tables.write(runs, folder / "runs")
    tables.write_parquet(examples, folder / "examples.parquet")
    evidence({"equivalence": MARGINS}, folder / "estimates.csv")
    rows = [
        {
            "model": "m",
            "dataset": "d",
            "method": m,
            "rank": r,
            "status": "ok",
            "step_flops": prices[m],
        }
        for m, r in curves
        if m in prices
    ]
    tables.write(pd.DataFrame(rows), folder / "flops")
    views({"tables": ["runs", "estimates", "comparisons", "flops"]}, folder / "views.csv")
    return tuple(
        tables.read(folder / f"{name}.csv").query("cost == 'step_flops'")
        for name in ("fronts", "views")
    )


def scores(
    accuracy: float, seeds: int = 3, examples: int = 1000, noise: float = 0.002
) -> list[np.ndarray]:
    chance = np.random.default_rng(int(1e6 * accuracy))
    place = np.random.default_rng(0).random(examples)
    return [
        ((place < accuracy) ^ (chance.random(examples) < noise)).astype(float) for _ in range(seeds)
    ]


def test_a_dominated_curve_is_off_the_front_and_the_others_are_surely_on_it(tmp_path: Path) -> None:
    curves = {("full", 0): scores(0.9), ("lora", 4): scores(0.8), ("rsvd", 4): scores(0.7)}
    front, _ = made(tmp_path, curves, {"full": 30, "lora": 10, "rsvd": 20})
    assert list(front["on_front"]) == [True, True, False]
    assert list(front["front_probability"]) == [1.0, 1.0, 0.0]
    assert list(front["amount"]) == [30, 10, 20]


def test_curves_that_noise_could_exchange_share_the_front_in_some_draws(tmp_path: Path) -> None:
    right = np.random.default_rng(1).random((2, 3, 400)) < 0.8
    front, _ = made(
        tmp_path, {("full", 0): right[0], ("lora", 4): right[1]}, {"full": 10, "lora": 10}
    )
    assert front["on_front"].sum() == 1
    assert front["front_probability"].between(0.02, 0.98).all()
    assert front["front_probability"].sum() >= 1  # at least one of them in every draw


def test_a_lower_perplexity_is_on_the_front(tmp_path: Path) -> None:
    losses = np.random.default_rng(2).gamma(4, 0.5, (3, 200))
    front, ladder = made(
        tmp_path, {("full", 0): losses, ("lora", 4): losses + 0.5}, {"full": 10, "lora": 20}
    )
    assert list(front["on_front"]) == [True, False]
    assert list(ladder["method"]) == ["full", "full"]


def test_curves_without_a_cost_or_with_failed_runs_are_named_and_not_ranked(tmp_path: Path) -> None:
    bad = [*scores(0.95, seeds=2), "diverged"]
    curves = {
        ("full", 0): scores(0.9),
        ("lora", 4): scores(0.8),
        ("rsvd", 4): scores(0.99),
        ("head_only", 0): bad,
    }
    front, ladder = made(tmp_path, curves, {"full": 30, "lora": 10, "head_only": 1})
    assert list(front["on_front"].dropna()) == [True, True]
    assert list(front["note"].dropna()) == ["no step_flops: not measured", "seed 2 diverged"]
    assert set(ladder["method"]) == {"full", "lora"}


def test_one_seed_has_no_probability(tmp_path: Path) -> None:
    front, _ = made(
        tmp_path,
        {("full", 0): scores(0.9, 1), ("lora", 4): scores(0.8, 1)},
        {"full": 30, "lora": 10},
    )
    assert list(front["on_front"]) == [True, True]
    assert front["front_probability"].isna().all()
    assert set(front["note"]) == {"one seed: no interval"}


def test_a_budget_buys_the_best_that_costs_no_more_and_names_what_is_tied(tmp_path: Path) -> None:
    curves = {
        ("full", 0): scores(0.9, 4, 4000),
        ("lora", 4): scores(0.899, 4, 4000),
        ("rsvd", 4): scores(0.7, 4, 4000),
    }
    _, ladder = made(tmp_path, curves, {"full": 30, "lora": 20, "rsvd": 10})
    assert list(ladder["budget"]) == [10, 20, 30]
    assert list(ladder["method"]) == ["rsvd", "lora", "full"]
    assert list(ladder["tied"].fillna("")) == ["", "", "lora r4"]
    assert ladder["undecided"].isna().all()
    assert list(ladder["estimate"]) == pytest.approx(
        [np.mean(scores(a, 4, 4000)) for a in (0.7, 0.899, 0.9)]
    )


def test_the_same_data_draw_the_same_shares(tmp_path: Path) -> None:
    right = np.random.default_rng(3).random((2, 3, 400)) < 0.8
    for folder in ("one", "other"):
        made(
            tmp_path / folder,
            {("full", 0): right[0], ("lora", 4): right[1]},
            {"full": 10, "lora": 10},
        )
    one, other = ((tmp_path / folder / "fronts.csv").read_bytes() for folder in ("one", "other"))
    assert one == other


def test_people_read_whether_a_curve_is_on_the_front(tmp_path: Path) -> None:
    made(tmp_path, {("full", 0): scores(0.9), ("lora", 4): scores(0.95)}, {"full": 30, "lora": 10})
    lines = [
        line for line in (tmp_path / "fronts.md").read_text().splitlines() if "step_flops" in line
    ]
    assert ["False" in line for line in lines] == ["full" in line for line in lines]
    assert len(lines) == 2
