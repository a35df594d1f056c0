"""Statistics beside scipy's and statsmodels' on fixed data, and bad input."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from rankwise.analysis import statistics, variance

CHANCE = np.random.default_rng(5)
LOSSES = (
    CHANCE.normal(size=(4, 1)) * 0.2 + CHANCE.normal(size=60) + CHANCE.normal(size=(4, 60)) * 0.5
)
OTHERS = LOSSES + CHANCE.normal(size=(4, 60)) * 0.3 + 0.1
RIGHT = (LOSSES > -1).astype(float)
WRONG = (OTHERS > -1).astype(float)


# One factor alone: the tests that everybody knows.


def test_one_number_a_run_is_the_t_interval_over_seeds() -> None:
    runs = LOSSES[:, :1]
    found = statistics.mean(runs, level=0.9)
    known = scipy_stats.ttest_1samp(runs[:, 0], 0.0)
    interval = known.confidence_interval(0.9)
    assert (found.low, found.high, found.degrees_of_freedom) == pytest.approx(
        (interval.low, interval.high, known.df)
    )
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


def test_components_are_the_mean_squares_of_a_two_way_table() -> None:
    """By the textbook's sums of squares, cell by cell."""
    seeds, examples = LOSSES.shape
    rows, columns, grand = LOSSES.mean(1), LOSSES.mean(0), LOSSES.mean()
    residual = sum(
        (LOSSES[s, e] - rows[s] - columns[e] + grand) ** 2
        for s in range(seeds)
        for e in range(examples)
    )
    residual /= (seeds - 1) * (examples - 1)
    by_seed = examples * sum((row - grand) ** 2 for row in rows) / (seeds - 1)
    by_example = seeds * sum((column - grand) ** 2 for column in columns) / (examples - 1)
    b, a = variance.components(LOSSES)
    assert (b, a) == pytest.approx((by_seed / LOSSES.size, (by_example - residual) / LOSSES.size))


def test_weights_give_the_mean_a_token() -> None:
    """And the interval that resampling whole examples gives, seeds aside."""
    tokens = CHANCE.integers(1, 40, size=60)
    found = statistics.mean(LOSSES, tokens)
    assert found.value == pytest.approx(np.average(LOSSES, axis=1, weights=tokens).mean())
    assert statistics.mean(LOSSES, np.full(60, 7)) == pytest.approx(statistics.mean(LOSSES))
    same = np.tile(LOSSES[0], (3, 1))
    wide = scipy_stats.bootstrap(
        (LOSSES[0], tokens),
        lambda y, w, axis: (y * w).sum(axis) / w.sum(axis),
        paired=True,
        n_resamples=4000,
        rng=1,
        method="percentile",
    )
    assert statistics.mean(same, tokens).standard_error == pytest.approx(
        wide.standard_error, rel=0.06
    )


def test_bootstrap_over_examples_is_scipys() -> None:
    """One seed: percentiles and standard error within what 20,000 resamples leave open."""
    drawn = statistics.bootstrap(np.mean, [LOSSES[:1]], 20000, seed=2)
    known = scipy_stats.bootstrap(
        (LOSSES[0],), np.mean, n_resamples=20000, rng=3, method="percentile"
    )
    assert drawn.std(ddof=1) == pytest.approx(known.standard_error, rel=0.05)
    assert np.quantile(drawn, (0.025, 0.975)) == pytest.approx(
        tuple(known.confidence_interval), abs=0.02
    )


def test_bootstrap_picks_the_same_seeds_and_examples_in_every_table() -> None:
    gaps = statistics.bootstrap(
        lambda a, b: np.abs(a + 1 - b).max(), [LOSSES, LOSSES + 1], 50, seed=0
    )
    assert gaps == pytest.approx(np.zeros(50))
    assert statistics.bootstrap(lambda a: (a.min(), a.max()), [LOSSES], 7, seed=0).shape == (7, 2)


# Tests of hypotheses.


def test_equivalence_is_the_paired_tost() -> None:
    a, b = LOSSES[:, 0], OTHERS[:, 0]
    known = ttost_paired(a, b, -0.4, 0.4)[0]
    assert statistics.equivalence(
        statistics.difference(a[:, None], b[:, None]), 0.4
    ) == pytest.approx(known)


def test_equivalence_agrees_with_the_90_percent_interval() -> None:
    """p < 0.05 just where the 90 % interval lies within the margin."""
    found = statistics.difference(LOSSES, OTHERS, level=0.9)
    edge = max(abs(found.low), abs(found.high))
    assert (
        statistics.equivalence(found, edge * 1.001)
        < 0.05
        < statistics.equivalence(found, edge * 0.999)
    )


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.02, np.nan, 0.03]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert statistics.holm([np.nan]) == pytest.approx([np.nan], nan_ok=True)
    assert statistics.holm([]).shape == (0,)


def test_mcnemar_is_the_exact_one() -> None:
    table = [[np.sum((RIGHT[0] == x) & (WRONG[0] == y)) for y in (1, 0)] for x in (1, 0)]
    assert min(table[0][1], table[1][0]) > 0
    assert statistics.mcnemar(RIGHT[0], WRONG[0]) == pytest.approx(
        reference_mcnemar(table, exact=True).pvalue
    )
    assert statistics.mcnemar([1, 1, 0, 1], [0, 0, 0, 0]) == pytest.approx(
        scipy_stats.binomtest(3, 3).pvalue
    )
    assert statistics.mcnemar(RIGHT[0], RIGHT[0]) == 1


def test_permutation_counts_every_exchange() -> None:
    """Eight examples, and two more without a gap: all 2^8 signs by hand."""
    a, b = LOSSES[:, :10].copy(), OTHERS[:, :10]
    a[:, 8:] = b[:, 8:]
    gaps = (a - b).mean(0)[:8]
    signs = np.array(np.meshgrid(*[(-1, 1)] * 8)).reshape(8, -1)
    sums = gaps @ signs
    share = min(np.mean(sums >= gaps.sum() - 1e-12), np.mean(sums <= gaps.sum() + 1e-12))
    assert statistics.permutation(a, b, draws=1000, seed=0) == pytest.approx(min(1, 2 * share))


def test_permutation_samples_where_exchanges_are_many() -> None:
    """Near the z test that it is for many examples; the same seed gives the same p."""
    gaps = (LOSSES - OTHERS).mean(0)
    near = 2 * scipy_stats.norm.sf(abs(gaps.sum()) / np.sqrt((gaps**2).sum()))
    found = statistics.permutation(LOSSES, OTHERS + 0.02, 4999, seed=1)
    assert found == statistics.permutation(LOSSES, OTHERS + 0.02, 4999, seed=1)
    assert statistics.permutation(LOSSES, OTHERS, 4999, seed=1) == pytest.approx(near, abs=0.02)
    assert statistics.permutation(LOSSES, LOSSES, 99, seed=1) == 1
    assert statistics.permutation(LOSSES, LOSSES + 1, 99, seed=1) == pytest.approx(0.02)


# Seeds needed.


def test_seeds_needed_for_runs_is_the_textbooks() -> None:
    """One number a run: the first S with t(S-1) s / sqrt(S) within reach, by trying them."""
    runs = LOSSES[:, :1]
    spread = runs.std(ddof=1)
    for wanted in (1.0, 0.5, 0.1):
        by_hand = next(
            n
            for n in range(2, 10**6)
            if scipy_stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) <= wanted
        )
        assert statistics.seeds_needed(statistics.mean(runs), 4, wanted) == by_hand


def test_seeds_needed_finds_a_difference_with_half_power() -> None:
    """An effect as large as the half width is found in about half of the studies of that many seeds."""
    runs = LOSSES[:, :1]
    seeds = statistics.seeds_needed(statistics.mean(runs), 4, 0.1)
    assert TTestPower().power(0.1 / runs.std(ddof=1), seeds, 0.05) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_seeds_needed_for_the_interval_one_has(seeds: int) -> None:
    found = statistics.mean(LOSSES[:seeds])
    assert statistics.seeds_needed(found, seeds, (found.high - found.low) / 2 * 1.0001) == seeds


def test_no_number_of_seeds_makes_up_for_few_examples() -> None:
    found = statistics.mean(LOSSES)
    floor = scipy_stats.norm.ppf(0.975) * np.sqrt(variance.components(LOSSES)[1])
    assert statistics.seeds_needed(found, 4, 0.99 * floor) == np.inf
    assert 4 < statistics.seeds_needed(found, 4, 1.01 * floor) < np.inf


# What happens at the edges.


def test_one_seed_has_a_value_and_no_interval() -> None:
    for found in (
        statistics.mean(LOSSES[:1]),
        statistics.mean(RIGHT[:1]),
        statistics.difference(RIGHT[:1], WRONG[:1]),
    ):
        assert np.isfinite(found.value)
        assert np.isnan([found.low, found.high, found.standard_error]).all()
        assert np.isnan(
            [
                statistics.p_value(found),
                statistics.equivalence(found, 0.1),
                statistics.seeds_needed(found, 1, 0.1),
            ]
        ).all()


def test_accuracies_stay_between_0_and_1() -> None:
    found = statistics.mean(np.repeat([[1.0], [0.0], [1.0]], 30, axis=1) * (np.arange(30) > 0))
    assert 0 < found.low < found.value < found.high < 1


def test_all_right_is_the_exact_binomial_interval() -> None:
    known = scipy_stats.binomtest(30, 30).proportion_ci(method="exact")
    assert statistics.mean(np.ones((3, 30)), np.arange(1, 31))[1:3] == pytest.approx(
        (known.low, known.high)
    )
    assert statistics.mean(np.zeros((3, 30)))[1:3] == pytest.approx((1 - known.high, 1 - known.low))


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
    assert (
        statistics.equivalence(found, 1),
        statistics.equivalence(found, 0.4),
        statistics.seeds_needed(found, 3, 0.1),
    ) == (0, 1, 2)


def test_leading_axes_are_tables_of_their_own() -> None:
    both = statistics.difference(np.stack([LOSSES, RIGHT]), np.stack([OTHERS, WRONG]))
    assert [field[0] for field in both] == pytest.approx(
        list(statistics.difference(LOSSES, OTHERS))
    )
    assert [field[1] for field in both] == pytest.approx(list(statistics.difference(RIGHT, WRONG)))
    assert statistics.p_value(both)[0] == pytest.approx(
        statistics.p_value(statistics.difference(LOSSES, OTHERS))
    )


@pytest.mark.parametrize(("call", "message"), [
    (lambda: statistics.mean(LOSSES[0]), r"shape \(60,\).*allowed: \(seeds, examples\)"),
    (lambda: statistics.mean(np.empty((0, 5))), r"shape \(0, 5\)"),
    (lambda: statistics.mean([[1.0, np.nan]]), "1 nan or infinite"),
    (lambda: statistics.mean(LOSSES, np.ones(59)), r"weights: shape is \(59,\); allowed: 60 positive"),
    (lambda: statistics.mean(LOSSES, np.arange(60)), "60 positive"),
    (lambda: statistics.mean(LOSSES, level=95), "level is 95"),
    (lambda: statistics.difference(LOSSES, OTHERS[:3]), r"a is \(4, 60\), b is \(3, 60\); allowed: the same seeds and examples"),
    (lambda: statistics.difference(LOSSES, OTHERS[:, :1]), r"b is \(4, 1\)"),
    (lambda: statistics.equivalence(statistics.mean(LOSSES), 0), "margin is 0; allowed: above 0"),
    (lambda: statistics.seeds_needed(statistics.mean(LOSSES), 4, -1), "half_width is -1"),
    (lambda: statistics.seeds_needed(statistics.mean(LOSSES), 4, 1, level=2), "level is 2"),
    (lambda: statistics.holm([0.1, 1.2]), "from 0 to 1"),
    (lambda: statistics.mcnemar(RIGHT[0], WRONG[0, :5]), r"\(60,\) and \(5,\)"),
    (lambda: statistics.mcnemar(LOSSES[0], WRONG[0]), "each score 0 or 1"),
    (lambda: statistics.permutation(LOSSES[None], OTHERS[None], 9, 0), r"\(1, 4, 60\)"),
    (lambda: statistics.bootstrap(np.mean, [LOSSES, OTHERS[:2]], 9, 0), "one shape"),
    (lambda: statistics.bootstrap(np.mean, [], 9, 0), "one shape"),
    (lambda: statistics.pareto(np.ones(3), np.ones(4)), "broadcast|one shape"),
])  # fmt: skip
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Fronts.

NUMBERS = some.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])


@given(arrays(float, some.tuples(some.just(2), some.integers(1, 8)), elements=NUMBERS))
def test_front_by_brute_force(points: np.ndarray) -> None:
    costs, values = points

    def beaten(i: int) -> bool:
        return any(
            costs[j] <= costs[i]
            and values[j] >= values[i]
            and (costs[j] < costs[i] or values[j] > values[i])
            for j in range(len(costs))
        )

    expected = [not np.isnan(points[:, i]).any() and not beaten(i) for i in range(len(costs))]
    whole = ~np.isnan(points).any(0)
    assert statistics.pareto(costs, values).tolist() == expected
    assert statistics.pareto(costs, values).any() == whole.any()


def test_front_probability_is_the_share_of_draws() -> None:
    """Equal cost, values one spread apart: the better is drawn better with P(z < 1 / sqrt(2)) = 0.76."""
    values = np.random.default_rng(0).normal([[0.0], [1.0]], 1, size=(2, 20000))
    assert statistics.front_probability(np.ones((2, 1)), values) == pytest.approx(
        [0.24, 0.76], abs=0.01
    )
    assert statistics.front_probability([[1.0], [2.0]], values)[0] == 1
