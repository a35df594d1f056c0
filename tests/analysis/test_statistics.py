"""Intervals and tests beside scipy's and statsmodels' on fixed data, and bad input."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from helpers.scores import LOSSES, OTHERS, RIGHT, TOKENS, WRONG
from rankwise.analysis import statistics

# One factor alone: the tests that everybody knows ------------------------------------------------


def test_one_number_a_run_is_the_t_interval_over_seeds() -> None:
    runs = LOSSES[:, :1]
    found = statistics.mean(runs, level=0.9)
    known = scipy_stats.ttest_1samp(runs[:, 0], 0.0)
    interval = known.confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.degrees_of_freedom == known.df
    assert found.seed_share == 1
    assert statistics.p_value(found) == pytest.approx(known.pvalue)


def test_a_difference_of_runs_is_the_paired_t_test() -> None:
    a, b = LOSSES[:, :1], OTHERS[:, :1]
    known = scipy_stats.ttest_rel(a[:, 0], b[:, 0])
    found = statistics.difference(a, b)
    assert statistics.p_value(found) == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval()))


def test_without_an_example_effect_it_is_the_t_test_on_means_of_seeds() -> None:
    """Examples that differ by less than the residual add nothing: the columns' means are made equal."""
    level = LOSSES - LOSSES.mean(0)
    known = scipy_stats.ttest_1samp(level.mean(1) + 0.05, 0.0)
    assert statistics.p_value(statistics.mean(level + 0.05)) == pytest.approx(known.pvalue)


def test_where_seeds_agree_it_is_the_interval_over_examples() -> None:
    """Equal rows: no seed, no residual, so a normal interval."""
    known = DescrStatsW(LOSSES[0]).zconfint_mean()
    found = statistics.mean(np.tile(LOSSES[0], (3, 1)))
    assert (found.low, found.high) == pytest.approx(known)
    assert found.seed_share == pytest.approx(0)


def test_weights_give_the_mean_a_token() -> None:
    """And the standard error that resampling whole examples gives, seeds aside."""
    found = statistics.mean(LOSSES, TOKENS)
    assert found.value == pytest.approx(np.average(LOSSES, axis=1, weights=TOKENS).mean())
    assert statistics.mean(LOSSES, np.full(60, 7)) == pytest.approx(statistics.mean(LOSSES))
    same = np.tile(LOSSES[0], (3, 1))
    known = scipy_stats.bootstrap(
        (LOSSES[0], TOKENS),
        lambda y, w, axis: (y * w).sum(axis) / w.sum(axis),
        paired=True,
        n_resamples=4000,
        rng=1,
        method="percentile",
    )
    error = statistics.mean(same, TOKENS).standard_error
    assert error == pytest.approx(known.standard_error, rel=0.06)


# Tests of hypotheses ------------------------------------------------------------------------------


def test_equivalence_is_the_paired_tost() -> None:
    a, b = LOSSES[:, 0], OTHERS[:, 0]
    known = ttost_paired(a, b, -0.4, 0.4)[0]
    found = statistics.equivalence(statistics.difference(a[:, None], b[:, None]), 0.4)
    assert found == pytest.approx(known)


def test_equivalence_agrees_with_the_90_percent_interval() -> None:
    """p < 0.05 just where the 90 % interval lies within the margin."""
    found = statistics.difference(LOSSES, OTHERS, level=0.9)
    edge = max(abs(found.low), abs(found.high))
    assert statistics.equivalence(found, edge * 1.001) < 0.05
    assert statistics.equivalence(found, edge * 0.999) > 0.05


# Ratios -------------------------------------------------------------------------------------------


def test_a_ratio_of_runs_is_fiellers() -> None:
    """One number a run: the roots of Fieller's quadratic equation, from the paired (co)variances."""
    a, b = LOSSES[:, :1] + 4, OTHERS[:, :1] + 5
    seeds = len(a)
    (var_a, cov), (_, var_b) = np.cov(a[:, 0], b[:, 0]) / seeds
    t = scipy_stats.t.ppf(0.975, seeds - 1)
    # (mean a - r mean b)^2 = t^2 (var a - 2 r cov + r^2 var b)
    quadratic = [
        b.mean() ** 2 - t**2 * var_b,
        -2 * (a.mean() * b.mean() - t**2 * cov),
        a.mean() ** 2 - t**2 * var_a,
    ]
    value, low, high = statistics.ratio(a, b)
    assert value == pytest.approx(a.mean() / b.mean())
    assert [low, high] == pytest.approx(sorted(np.roots(quadratic)), rel=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_a_ratio_leaves_1_out_where_the_difference_leaves_0_out(level: float) -> None:
    for shift in np.linspace(-0.6, 0.6, 25):
        a, b = LOSSES + 3 + shift, OTHERS + 3
        gap = statistics.difference(a, b, level=level)
        _, low, high = statistics.ratio(a, b, level)
        assert (low > 1, high < 1) == (gap.low > 0, gap.high < 0), shift


def test_a_ratio_that_the_data_do_not_bound_has_no_end() -> None:
    """The denominator may be 0 as far as the data tell; and it is 0."""
    hardly = np.array([[0.0] * 60, [0.0] * 59 + [1.0], [0.0] * 60])
    value, low, high = statistics.ratio(RIGHT[:3], hardly)
    assert value == pytest.approx(RIGHT[:3].mean() * 180)
    assert low >= 0
    assert high == np.inf
    assert np.isnan(statistics.ratio(RIGHT, np.zeros_like(RIGHT))).all()
    assert np.isnan(statistics.ratio(RIGHT[:1], RIGHT[1:2])[1:]).all()


def test_the_ratio_of_equal_predictions_is_1_as_far_as_the_examples_tell() -> None:
    unseen = scipy_stats.binomtest(0, 60).proportion_ci(method="exact").high
    expected = (1, 1 - unseen / RIGHT.mean(), 1 + unseen / RIGHT.mean())
    assert statistics.ratio(RIGHT, RIGHT) == pytest.approx(expected)
    assert statistics.ratio(LOSSES + 4, LOSSES + 4) == (1, 1, 1)
    assert statistics.ratio(3 * (LOSSES + 4), LOSSES + 4) == pytest.approx((3, 3, 3))


# Edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [
    statistics.mean(LOSSES[:1]),
    statistics.mean(RIGHT[:1]),
    statistics.difference(RIGHT[:1], WRONG[:1]),
])  # fmt: skip
def test_one_seed_has_a_value_and_no_interval(found: statistics.Estimate) -> None:
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high, found.standard_error]).all()
    assert np.isnan(statistics.p_value(found))
    assert np.isnan(statistics.equivalence(found, 0.1))


def test_accuracies_stay_between_0_and_1() -> None:
    found = statistics.mean(np.repeat([[1.0], [0.0], [1.0]], 30, axis=1) * (np.arange(30) > 0))
    assert 0 < found.low < found.value < found.high < 1


def test_all_right_is_the_exact_binomial_interval() -> None:
    known = scipy_stats.binomtest(30, 30).proportion_ci(method="exact")
    right = statistics.mean(np.ones((3, 30)), np.arange(1, 31))
    assert (right.low, right.high) == pytest.approx((known.low, known.high))
    wrong = statistics.mean(np.zeros((3, 30)))
    assert (wrong.low, wrong.high) == pytest.approx((1 - known.high, 1 - known.low))


def test_equal_predictions_are_a_tie_as_far_as_the_examples_tell() -> None:
    """None of 60 examples differ: the exact binomial interval of that share, both ways; more examples bring a tie."""
    found = statistics.difference(RIGHT, RIGHT)
    high = scipy_stats.binomtest(0, 60).proportion_ci(method="exact").high
    assert found[:3] == pytest.approx((0, -high, high))
    assert statistics.p_value(found) == 1
    assert statistics.equivalence(found, 0.01) > 0.05
    many = np.tile(RIGHT, 20)
    assert statistics.equivalence(statistics.difference(many, many), 0.01) < 0.05


def test_seeds_that_tie_by_luck_are_not_taken_for_certain() -> None:
    """Three runs, each better on one example of its own: a sign test has p = 0.25, and the seeds' means do not vary."""
    a, b = np.zeros((3, 200)), np.zeros((3, 200))
    a[range(3), range(3)] = 1
    assert statistics.p_value(statistics.difference(a, b)) > 0.15


def test_a_constant_difference_is_certain() -> None:
    found = statistics.mean(np.full((3, 5), 0.5))
    assert (found.low, found.high, statistics.p_value(found)) == (0.5, 0.5, 0)
    assert [statistics.equivalence(found, margin) for margin in (1, 0.4)] == [0, 1]


def test_leading_axes_are_tables_of_their_own() -> None:
    both = statistics.difference(np.stack([LOSSES, RIGHT]), np.stack([OTHERS, WRONG]))
    for number, (a, b) in enumerate(((LOSSES, OTHERS), (RIGHT, WRONG))):
        alone = statistics.difference(a, b)
        assert [field[number] for field in both] == pytest.approx(list(alone))
        assert statistics.p_value(both)[number] == pytest.approx(statistics.p_value(alone))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: statistics.mean(LOSSES[0]), r"shape \(60,\).*allowed: \(seeds, examples\)"),
    (lambda: statistics.mean(np.empty((0, 5))), r"shape \(0, 5\)"),
    (lambda: statistics.mean([[1.0, np.nan]]), "1 nan or infinite"),
    (lambda: statistics.mean(LOSSES, np.ones(59)), r"weights: shape is \(59,\); allowed: 60 positive"),
    (lambda: statistics.mean(LOSSES, np.arange(60)), "60 positive"),
    (lambda: statistics.mean(LOSSES, level=95), "level is 95"),
    (lambda: statistics.difference(LOSSES, OTHERS[:3]), r"a is \(4, 60\), b is \(3, 60\); allowed: the same seeds and examples"),
    (lambda: statistics.difference(LOSSES, OTHERS[:, :1]), r"b is \(4, 1\)"),
    (lambda: statistics.ratio(LOSSES, OTHERS[:3]), r"a is \(4, 60\), b is \(3, 60\)"),
    (lambda: statistics.equivalence(statistics.mean(LOSSES), 0), "margin is 0; allowed: above 0"),
])  # fmt: skip
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
