"""Metrics equal scipy's and hand-computed values, and their pseudo-values make honest intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from helpers.planted import MARGINS
from rankwise.analysis import metrics, statistics
from rankwise.analysis.evidence import comparisons, estimates
from rankwise.analysis.scores import Curve, Group
from rankwise.core.metrics import METRICS

MACRO_F1, MATTHEWS = METRICS["macro_f1_fraction"], METRICS["matthews_correlation"]
SPEARMAN, PEARSON = METRICS["spearman_correlation"], METRICS["pearson_correlation"]
ERROR = METRICS["mean_squared_error"]
# Worked by hand: class 0 has 2 right of 3 labelled and 3 named, class 1 has 1 of 2 and 1, class 2
# has 1 of 1 and 2. F1: 4/6, 2/3, 2/3. Matthews: (4*6 - (9+2+2)) / sqrt((36-14)(36-14)).
LABEL, PREDICTED = [0, 0, 0, 1, 1, 2], [0, 0, 2, 1, 0, 2]


def scores(label: list[float], predicted: list[float]) -> dict[str, list[float]]:
    return {"label": label, "predicted": predicted, "predictions": [1] * len(label)}


def numbers(examples: int, noise: float = 1.0) -> tuple[NDArray, NDArray]:
    chance = np.random.default_rng(0)
    label = chance.integers(0, 6, examples).astype(float)  # with ties
    return label, label + noise * chance.normal(size=examples).round(1)


# Values -------------------------------------------------------------------------------------------


def test_values_of_classes_are_those_worked_by_hand():
    found = scores(LABEL, PREDICTED)
    assert metrics.value(MACRO_F1, found) == pytest.approx(2 / 3)
    assert metrics.value(MATTHEWS, found) == pytest.approx(11 / 22)


def test_matthews_of_two_classes_is_the_correlation_of_0_and_1():
    chance = np.random.default_rng(1)
    label = chance.integers(0, 2, 60)
    predicted = np.where(chance.random(60) < 0.2, 1 - label, label)
    assert metrics.value(MATTHEWS, scores(label, predicted)) == pytest.approx(
        stats.pearsonr(label, predicted).statistic
    )


@pytest.mark.parametrize(
    ("metric", "known"), [(SPEARMAN, stats.spearmanr), (PEARSON, stats.pearsonr)]
)
def test_correlations_of_numbers_are_scipys(metric, known):
    label, predicted = numbers(80)
    expected = known(label, predicted).statistic
    assert metrics.value(metric, scores(label, predicted)) == pytest.approx(expected, abs=1e-12)


def test_a_collapsed_model_has_no_correlation_and_the_f1_of_one_class():
    one_class = scores([0, 0, 0, 1], [0, 0, 0, 0])
    assert metrics.value(MATTHEWS, one_class) == 0
    assert metrics.value(MACRO_F1, one_class) == pytest.approx((6 / 7 + 0) / 2)
    assert metrics.value(PEARSON, scores([0.1, 0.2, 0.7], [0.3, 0.3, 0.3])) == 0


def test_the_mean_squared_error_is_the_mean_of_squares():
    assert metrics.value(ERROR, scores([1.0, 2.0], [1.5, 1.0])) == pytest.approx(1.25 / 2)


def test_f1_of_counts_adds_them_over_examples():
    counts = {"right": [1, 0, 2], "named": [2, 0, 2], "labelled": [1, 1, 3]}
    found = metrics.value(METRICS["micro_f1_fraction"], {**counts, "predictions": [1, 1, 1]})
    assert found == pytest.approx(2 * 3 / (4 + 5))


# Three windows of running text: 3 + 2 x 4 + 1 = 12 nats, over 5 words and 24 bytes.
WINDOWS = {
    "loss_nats": [1.0, 2.0, 0.5], "predictions": [3, 4, 2], "words": [2, 3, 0],
    "text_bytes": [8, 12, 4],
}  # fmt: skip
NATS, WORDS, BYTES = 12, 5, 24


def test_words_and_bytes_divide_the_losses_of_all_tokens():
    assert metrics.value(METRICS["word_perplexity"], WINDOWS) == pytest.approx(
        math.exp(NATS / WORDS)
    )
    assert metrics.value(METRICS["bits_per_byte"], WINDOWS) == pytest.approx(
        NATS / BYTES / math.log(2)
    )


@pytest.mark.parametrize(
    ("name", "unit", "divisor"),
    [("word_perplexity", "words", 1), ("bits_per_byte", "text_bytes", math.log(2))],
)
def test_a_window_adds_what_leaving_it_out_changes(name, unit, divisor):
    """The jackknife of the ratio of two sums, window by window."""
    sums = [
        loss * count
        for loss, count in zip(WINDOWS["loss_nats"], WINDOWS["predictions"], strict=True)
    ]
    units = WINDOWS[unit]
    whole = sum(sums) / sum(units) / divisor
    without = [(sum(sums) - sums[i]) / (sum(units) - units[i]) / divisor for i in range(len(units))]
    expected = [whole + 2 * (sum(without) / 3 - value) for value in without]
    columns = {key: np.array([values], float) for key, values in WINDOWS.items()}
    found = metrics.by_example(METRICS[name], columns)
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


# Pseudo-values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [MACRO_F1, MATTHEWS])
def test_pseudo_values_are_those_of_leaving_each_example_out(metric):
    function = metrics.FUNCTIONS[metric.name]
    label, predicted = np.array(LABEL, float), np.array(PREDICTED, float)
    without = [
        float(function(np.delete(label, i), np.delete(predicted, i))) for i in range(len(label))
    ]
    expected = float(function(label, predicted)) + 5 * (np.mean(without) - np.array(without))
    found = metrics.pseudo_values(function, [label, predicted])
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("metric", [MACRO_F1, MATTHEWS, SPEARMAN, PEARSON, ERROR])
def test_the_mean_of_pseudo_values_is_the_metric(metric):
    label, predicted = numbers(50)
    if metric in (MACRO_F1, MATTHEWS):
        predicted = predicted.round().clip(0, 5)
    columns = {
        name: np.stack([np.asarray(v, float)] * 2) for name, v in scores(label, predicted).items()
    }
    found = metrics.by_example(metric, columns)
    assert found.shape == (2, 50)
    shown = metrics.shown(metric, found[0].mean())
    assert shown == pytest.approx(metrics.value(metric, scores(label, predicted)))


def test_pseudo_values_of_a_mean_are_its_examples():
    values = np.array([0.2, 1.0, 0.4, 0.9])
    found = metrics.pseudo_values(lambda column: column.mean(-1), [values])
    np.testing.assert_allclose(found, values, atol=1e-12)


def test_large_splits_are_computed_in_parts(monkeypatch):
    label, predicted = numbers(40)
    whole = metrics.pseudo_values(metrics.spearman, [label, predicted])
    monkeypatch.setattr(metrics, "NUMBERS_AT_ONCE", 100)
    np.testing.assert_array_equal(
        metrics.pseudo_values(metrics.spearman, [label, predicted]), whole
    )


# Tables -------------------------------------------------------------------------------------------


def group(metric, per_curve: list[list[tuple[NDArray, NDArray]]]) -> Group:
    curves = []
    for number, runs in enumerate(per_curve):
        label, predicted = (np.stack([run[part] for run in runs]) for part in (0, 1))
        columns = {"label": label, "predicted": predicted, "predictions": np.ones_like(label)}
        by_example = metrics.by_example(metric, columns)
        curves.append(Curve(f"m{number}", 0, tuple(range(len(runs))), by_example, ""))
    return Group("m", "d", metric, label.shape[1], curves)


def noisy(noise: float, examples: int = 200, seeds: int = 3) -> list[tuple[NDArray, NDArray]]:
    label = np.random.default_rng(5).normal(size=examples)
    runs = []
    for seed in range(seeds):
        chance = np.random.default_rng((seed, int(100 * noise)))
        runs.append((label, label + noise * chance.normal(size=examples)))
    return runs


def test_less_error_and_more_correlation_are_better():
    for metric in (ERROR, SPEARMAN):
        found = comparisons([group(metric, [noisy(0.3), noisy(1.0)])], margins())
        assert list(found["verdict"]) == ["a better"]
        assert found["difference"].iloc[0] > 0


def margins() -> dict[str, float]:
    return {**MARGINS, "correlation": 0.01, "f1_fraction": 0.01, "mean_squared_error_ratio": 1.02}


def test_errors_have_a_ratio_and_correlations_none():
    errors = comparisons([group(ERROR, [noisy(0.3), noisy(1.0)])], margins()).iloc[0]
    squares = [np.mean([((p - y) ** 2).mean() for y, p in noisy(noise)]) for noise in (0.3, 1.0)]
    assert errors["ratio"] == pytest.approx(squares[0] / squares[1], rel=0.02)
    assert errors["ratio_low"] < errors["ratio"] < errors["ratio_high"] < 1
    assert math.isnan(
        comparisons([group(SPEARMAN, [noisy(0.3), noisy(1.0)])], margins())["ratio"].iloc[0]
    )


def test_intervals_stay_inside_the_bounds_of_the_metric():
    runs = [(np.arange(12.0) % 2, np.array([0.0, 1] * 5 + ends)) for ends in ([1, 1], [0, 1])]
    row = estimates([group(MATTHEWS, [runs])]).iloc[0]
    assert row["high"] <= 1
    assert row["low"] < row["estimate"] < 1


def test_equal_curves_are_never_told_apart():
    found = comparisons(
        [group(MATTHEWS, [[(np.array(LABEL), np.array(PREDICTED))] * 2] * 2)], margins()
    )
    assert set(found["verdict"]) <= {"tied", "undecided"}


def test_the_metric_of_runs_is_the_one_that_their_table_names():
    runs = pd.DataFrame({"metric": ["matthews_correlation"], "accuracy_fraction": [0.9]})
    assert metrics.of_runs(runs) is MATTHEWS
    assert metrics.of_runs(runs.drop(columns="metric")).name == "accuracy_fraction"
    assert metrics.of_runs(pd.DataFrame({"perplexity": [3.0]})).name == "perplexity"


# Coverage -----------------------------------------------------------------------------------------

STUDIES, SEEDS, EXAMPLES = 500, 3, 300
TRUTH_EXAMPLES = 2_000_000


def classes_drawn(chance: np.random.Generator, seeds: int, examples: int) -> dict[str, NDArray]:
    """Two classes, 30 % and 70 %; runs share what is hard in an example, and differ by luck."""
    label = (chance.random(examples) < 0.7).astype(float)
    hard = chance.normal(0, 0.7, examples)
    luck = chance.normal(0, 0.1, (seeds, 1)) + chance.normal(0, 0.7, (seeds, examples))
    is_right = (1.0 + hard + luck) > 0
    label = np.broadcast_to(label, (seeds, examples))
    return {"label": label, "predicted": np.where(is_right, label, 1 - label)}


def numbers_drawn(chance: np.random.Generator, seeds: int, examples: int) -> dict[str, NDArray]:
    label = chance.normal(size=examples)
    noise = 0.4 * chance.normal(size=examples) + 0.4 * chance.normal(size=(seeds, examples))
    skill = 1 + 0.05 * chance.normal(size=(seeds, 1))
    label = np.broadcast_to(label, (seeds, examples))
    return {"label": label, "predicted": skill * label + noise}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "draw"),
    [
        (MACRO_F1, classes_drawn),
        (MATTHEWS, classes_drawn),
        (PEARSON, numbers_drawn),
        (ERROR, numbers_drawn),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_95_of_100_intervals_hold_the_truth(metric, draw):
    """The truth is the mean over many seeds of the metric on very many examples."""
    chance = np.random.default_rng(8)
    many = draw(chance, 40, TRUTH_EXAMPLES // 40)
    function = metrics.FUNCTIONS[metric.name]
    truth = float(function(many["label"], many["predicted"]).mean())
    hits = 0
    for _ in range(STUDIES):
        drawn = draw(chance, SEEDS, EXAMPLES)
        columns = {**drawn, "predictions": np.ones((SEEDS, EXAMPLES))}
        found = statistics.mean(metrics.by_example(metric, columns))
        hits += found.low <= truth <= found.high
    # 95 %, less three standard errors of the count, and at most as wide as the intervals of means.
    assert 0.93 <= hits / STUDIES <= 0.98
