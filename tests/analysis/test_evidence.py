"""Estimates and comparisons: planted differences are found, others are not, unequal runs are refused."""

import gc
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as known

from helpers.planted import MARGINS, Scores, study, tables_of
from rankwise.analysis import model_tests, statistics, tables, tidy
from rankwise.analysis.evidence import comparisons, estimates
from rankwise.analysis.scores import Curve, Group, groups, mixed
from rankwise.core.metrics import METRICS

ACCURACY, PERPLEXITY = METRICS["accuracy_fraction"], METRICS["perplexity"]
STUDIES = 120  # simulated, for the rate of an error


def planted(folder: Path, curves: Scores) -> list[Group]:
    """The curves of a study with these scores."""
    return groups(*tables_of(study(folder, curves)))


def compared(folder: Path, curves: Scores) -> pd.DataFrame:
    """The comparisons of a study with these scores."""
    return comparisons(planted(folder, curves), MARGINS)


def drawn(chance: np.random.Generator, accuracies: list[float], seeds: int, examples: int) -> Group:
    """Curves whose true accuracies are given; examples are hard or easy for all, and seeds are better or worse."""
    hard = chance.normal(0, 0.8, examples)
    spread = math.sqrt(1 + 0.8**2 + 0.05**2)
    curves = []
    for number, accuracy in enumerate(accuracies):
        level = known.norm.ppf(accuracy) * spread
        luck = chance.normal(0, 0.05, (seeds, 1)) + chance.normal(0, 1, (seeds, examples))
        right = (level + hard + luck > 0).astype(float)
        curves.append(Curve(f"m{number}", 0, tuple(range(seeds)), right, ""))
    return Group("m", "d", ACCURACY, examples, curves)


def margins(accuracy_fraction: float) -> dict[str, float]:
    return {**MARGINS, "accuracy_fraction": accuracy_fraction}


@pytest.fixture
def few_collections() -> Iterator[None]:
    """Statsmodels collects garbage at every call, which takes long in a large process: exempt what exists already."""
    gc.freeze()
    yield
    gc.unfreeze()


# Estimates ----------------------------------------------------------------------------------------


def test_an_estimate_is_the_mean_of_the_runs_own_metric_with_its_interval(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    right, losses = chance.random((3, 40)) < 0.7, chance.gamma(2, 1, (3, 40))
    planned = study(tmp_path, {("full", 0): right})
    planned += study(tmp_path, {("full", 0): losses}, "text")
    runs, examples = tables_of(planned)
    found = estimates(groups(runs, examples)).set_index("metric")
    accuracy, perplexity = found.loc["accuracy_fraction"], found.loc["perplexity"]
    assert accuracy["estimate"] == pytest.approx(runs["accuracy_fraction"].mean())
    mean_loss = np.log(runs["perplexity"].dropna()).mean()
    assert perplexity["estimate"] == pytest.approx(math.exp(mean_loss))
    assert tuple(accuracy[["low", "high"]]) == statistics.mean(right)[1:3]
    assert tuple(perplexity[["low", "high"]]) == pytest.approx(np.exp(statistics.mean(losses)[1:3]))
    assert list(found["seeds"]) == [3, 3]
    assert list(found["examples"]) == [40, 40]


def test_examples_weigh_as_much_as_they_predict_even_where_seeds_differ(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    weights = [chance.integers(0, 9, 40) for _ in range(3)]
    shares = [chance.random(40) for _ in range(3)]
    runs, examples = tables_of(study(tmp_path, {("full", 0): shares}, weights=weights))
    found = estimates(groups(runs, examples))
    assert found["estimate"][0] == pytest.approx(runs["accuracy_fraction"].mean())


# Verdicts -----------------------------------------------------------------------------------------


def test_equal_methods_are_called_better_in_one_study_of_twenty_at_most(few_collections) -> None:
    chance, wrong = np.random.default_rng(2), 0
    for _ in range(STUDIES):
        verdicts = comparisons([drawn(chance, [0.8] * 3, 3, 200)], MARGINS)["verdict"]
        wrong += not {"a better", "b better"}.isdisjoint(verdicts)
    assert wrong <= known.binom.ppf(0.999, STUDIES, 0.05)


def test_methods_a_margin_apart_are_tied_in_one_study_of_twenty_at_most(few_collections) -> None:
    chance, wrong = np.random.default_rng(3), 0
    for _ in range(STUDIES):
        found = comparisons([drawn(chance, [0.80, 0.75], 3, 1000)], margins(0.05))
        wrong += found["verdict"][0] == "tied"
    assert wrong <= known.binom.ppf(0.999, STUDIES, 0.05)


def test_a_better_method_is_better_and_equal_ones_are_tied_with_enough_data() -> None:
    group = drawn(np.random.default_rng(4), [0.8, 0.8, 0.9], 8, 20000)
    found = comparisons([group], margins(0.02))
    assert list(found["verdict"]) == ["tied", "b better", "b better"]
    assert (found["difference"] < 0)[1:].all()
    assert (found["low"] < found["difference"]).all()
    assert (found["difference"] < found["high"]).all()


def test_a_lower_perplexity_is_better_and_its_margin_is_a_ratio(tmp_path: Path) -> None:
    chance = np.random.default_rng(5)
    losses = chance.gamma(4, 0.5, 400) + chance.normal(0, 0.01, (3, 400))
    curves = {("full", 0): losses, ("lora", 4): losses + 0.3, ("rsvd", 4): losses + 0.001}
    found = compared(tmp_path, curves)
    assert list(found["verdict"]) == ["a better", "tied", "b better"]
    assert found["difference"][0] == pytest.approx(0.3)
    assert found["margin"][0] == math.log(1.02)
    assert found["ratio"][0] == pytest.approx(math.exp(-0.3))
    ends = np.exp(-found.loc[0, ["high", "low"]].astype(float))
    assert list(found.loc[0, ["ratio_low", "ratio_high"]]) == pytest.approx(list(ends))


def test_a_real_difference_inside_the_margin_is_a_tie(tmp_path: Path) -> None:
    losses = np.random.default_rng(6).gamma(4, 0.5, 400) + np.array([[0], [0.001], [0.002]])
    shift = np.array([[0.004], [0.005], [0.006]])
    found = compared(tmp_path, {("full", 0): losses, ("lora", 4): losses + shift})
    assert found["low"][0] > 0
    assert found["p_adjusted"][0] < 0.05
    assert found["verdict"][0] == "tied"


def test_intervals_are_adjusted_for_the_pairs_of_their_model_and_dataset() -> None:
    """Three pairs: each interval is one of 1 - 0.05 / 3; another dataset does not count."""
    chance = np.random.default_rng(7)
    group = drawn(chance, [0.8, 0.82, 0.85], 3, 300)
    other = drawn(chance, [0.8, 0.82], 3, 300)._replace(dataset="e")
    found = comparisons([group, other], MARGINS)
    assert list(found["pairs"]) == [3, 3, 3, 1]
    a, b = group.curves[0].scores, group.curves[2].scores
    alone = statistics.difference(a, b, level=1 - 0.05 / 3)
    assert list(found.loc[1, ["low", "high"]]) == [alone.low, alone.high]
    assert list(found.loc[1, ["ratio", "ratio_low", "ratio_high"]]) == pytest.approx(
        statistics.ratio(a, b, 1 - 0.05 / 3)
    )
    assert found.loc[1, "p_adjusted"] == pytest.approx(min(1, 3 * found.loc[1, "p_value"]))
    a, b = (curve.scores for curve in other.curves)
    assert list(found.loc[3, ["low", "high"]]) == list(statistics.difference(a, b)[1:3])


def test_pairs_without_two_seeds_do_not_count(tmp_path: Path) -> None:
    right = (np.random.default_rng(9).random((3, 60)) < 0.7).astype(float).tolist()
    curves = {("full", 0): right, ("lora", 4): right[:1], ("rsvd", 4): right[1:]}
    assert set(compared(tmp_path, curves)["pairs"]) == {1}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    seeds=st.integers(1, 4),
    examples=st.integers(2, 40),
    gap=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
    metric=st.sampled_from([ACCURACY, PERPLEXITY]),
    margin=st.sampled_from([0.005, 0.05, 0.3]),
)
def test_an_interval_never_contradicts_its_verdict(
    seed: int, seeds: int, examples: int, gap: float, metric: object, margin: float
) -> None:
    chance = np.random.default_rng(seed)
    curves = []
    for number in range(4):
        scores = chance.random((seeds, examples)) - 0.3 * gap * number
        if metric is ACCURACY:
            scores = (scores < 0.9 - gap * number).astype(float)
        curves.append(Curve(f"m{number}", 0, tuple(range(seeds)), scores, ""))
    group = Group("m", "d", metric, examples, curves)
    asked = {"accuracy_fraction": margin, "perplexity_ratio": math.exp(margin)}
    for row in comparisons([group], asked).itertuples():
        says = {
            "a better": row.low > 0,
            "b better": row.high < 0,
            "tied": -row.margin <= row.low and row.high <= row.margin,
        }
        said = [verdict for verdict, is_shown in says.items() if is_shown]
        assert row.verdict == ("tied" if "tied" in said else said[0] if said else "undecided")
        assert (row.verdict == "undecided") or pd.isna(row.seeds_needed)
        if seeds == 1:
            assert row.verdict == "undecided"
            continue
        assert (row.p_adjusted <= 0.05) == (row.low > 0 or row.high < 0)
        assert (row.p_equivalence_adjusted <= 0.05) == says["tied"]
        if pd.notna(row.ratio):
            assert (row.ratio_low > 1 or row.ratio_high < 1) == (row.low > 0 or row.high < 0)
            assert row.ratio_low <= row.ratio <= row.ratio_high


def test_undecided_pairs_say_how_many_seeds_would_decide_them() -> None:
    """The number is that of the pair's own interval, at the level of its family."""
    group = drawn(np.random.default_rng(8), [0.8, 0.8], 3, 400)
    assert 3 <= comparisons([group], margins(0.1))["seeds_needed"][0] <= 50
    losses = np.random.default_rng(0).gamma(4, 0.5, 40)
    seeds = np.array([[0.0], [0.001], [-0.001]])  # hardly differ, while the examples do
    curves = [
        Curve(name, 0, (0, 1, 2), scores + seeds * factor, "")
        for name, scores, factor in (("a", losses, 1), ("b", losses[::-1], -1))
    ]
    found = comparisons([Group("m", "d", PERPLEXITY, 40, curves)], MARGINS)
    assert pd.isna(found["seeds_needed"][0])
    assert found["note"][0] == "examples too few, whatever the seeds"
    row = comparisons([drawn(np.random.default_rng(8), [0.8, 0.3], 3, 400)], MARGINS).loc[0]
    assert (row["verdict"], row["seeds_needed"] is pd.NA) == ("a better", True)


def test_trained_models_are_compared_apart_from_methods(tmp_path: Path) -> None:
    """Where seeds differ, models may be told apart and methods not."""
    apart = np.array([[1.0], [-0.2], [-0.2]]) + np.zeros((3, 200)) + np.linspace(0, 1, 200)
    level = np.linspace(0, 1, 200) + np.zeros((3, 200))
    groups_found = planted(tmp_path, {("full", 0): apart, ("lora", 4): level})
    row = comparisons(groups_found, MARGINS).loc[0]
    a, b = (curve.scores for curve in groups_found[0].curves)
    assert row["p_value"] > 0.05
    assert row["p_models"] == model_tests.permutation(-a, -b, 1999, seed=0)
    assert row["p_models"] < 0.01
    assert row["test_models"] == "permutation, within examples"


def test_models_of_one_seed_are_compared_by_mcnemars_test(tmp_path: Path) -> None:
    one, other = np.array([[1, 1, 1, 0] * 50]), np.array([[0, 0, 1, 0] * 50])
    row = compared(tmp_path, {("full", 0): one, ("lora", 4): other}).loc[0]
    assert row["p_models"] == model_tests.mcnemar(one[0], other[0])
    assert (row["test_models"], row["verdict"]) == ("McNemar, exact", "undecided")


# What is missing or unequal -----------------------------------------------------------------------


def test_one_seed_has_no_interval_and_decides_nothing(tmp_path: Path) -> None:
    curves = {("full", 0): [[1, 1, 1, 0] * 50], ("lora", 4): [[0, 0, 1, 0] * 50]}
    found = planted(tmp_path, curves)
    estimated, pairs = estimates(found), comparisons(found, MARGINS)
    assert list(estimated["estimate"]) == [0.75, 0.25]
    assert set(estimated["note"]) == {"one seed: no interval"}
    assert estimated[["low", "high"]].isna().all(axis=None)
    assert pairs[["low", "high", "p_value", "p_adjusted", "seeds_needed"]].isna().all(axis=None)
    pair = pairs.loc[0, ["difference", "verdict", "test", "note"]]
    assert tuple(pair) == (0.5, "undecided", "one seed", "one seed: no interval")


def test_runs_that_failed_are_named_and_pairs_share_what_both_have(tmp_path: Path) -> None:
    right = (np.random.default_rng(9).random((3, 60)) < 0.7).astype(float).tolist()
    curves = {
        ("full", 0): right,
        ("lora", 4): [right[0], "diverged", right[2]],
        ("rsvd", 4): "out_of_memory",
    }
    found = planted(tmp_path, curves)
    estimated, pairs = estimates(found), comparisons(found, MARGINS)
    assert list(estimated["seeds"]) == [3, 2, 0]
    assert list(estimated["note"].fillna("")) == ["", "seed 1 diverged", "seed 0, 1 out of memory"]
    assert list(pairs["seeds"]) == [2, 0, 0]
    assert pairs["note"][0].startswith("lora r4: seed 1 diverged")
    assert set(pairs["verdict"][1:]) == {"undecided"}
    assert pairs["difference"][0] == 0, "seed 0 against seed 0, and 2 against 2"


def test_scores_of_other_numbers_of_examples_are_refused_by_name(tmp_path: Path) -> None:
    curves = {("full", 0): [[1, 0, 1]] * 2, ("lora", 4): [[1, 0, 1], [1, 0]]}
    message = r"examples\.parquet: numbers of examples are .*2 for m/d/lora/r4/seed1"
    with pytest.raises(ValueError, match=message):
        planted(tmp_path, curves)


def test_runs_without_scores_are_named(tmp_path: Path) -> None:
    curves = {("full", 0): [[1, 0]] * 2, ("lora", 4): [[1, 0]] * 2}
    runs, examples = tables_of(study(tmp_path, curves))
    with pytest.raises(ValueError, match="no scores for m/d/lora/r4/seed0, m/d/lora/r4/seed1"):
        groups(runs, examples[examples["method"] == "full"])


def test_devices_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    planned = study(tmp_path / "one", {("full", 0): [[1, 0]] * 2}, device="cpu")
    planned += study(tmp_path / "other", {("lora", 4): [[1, 0]] * 2}, device="cuda")
    message = "device of m/d is cpu and cuda; allowed: one a model and dataset"
    with pytest.raises(ValueError, match=message):
        groups(*tables_of(planned))
    assert "device: cpu, but cuda for lora r4" in mixed(tidy.collect(planned))["m", "d"]


def test_a_study_of_failures_has_empty_tables_with_their_columns(tmp_path: Path) -> None:
    found = planted(tmp_path, {("full", 0): "diverged"})
    assert list(estimates(found).columns)[:5] == ["model", "dataset", "metric", "method", "rank"]
    pairs = comparisons(found, MARGINS)
    assert len(pairs) == 0
    tables.write(pairs, tmp_path / "comparisons")
    assert tables.read(tmp_path / "comparisons.csv").empty
