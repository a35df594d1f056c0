"""How many seeds would decide a pair: beside statsmodels' power of t tests, simulated studies, and by hand."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from helpers.scores import LOSSES, OTHERS
from rankwise.analysis import power, statistics, variance
from rankwise.analysis.statistics import Estimate


def found(value: float, of_one_seed: float, of_examples: float, seeds: int) -> Estimate:
    """An estimate with these variances."""
    variance = of_one_seed / seeds + of_examples
    error = math.sqrt(variance)
    share = of_one_seed / seeds / variance
    return Estimate(value, value - error, value + error, error, seeds - 1, share)


@pytest.mark.parametrize("seeds", [2, 3, 7, 30])
@pytest.mark.parametrize("effect", [0.0, 0.4, 1.0])
def test_without_examples_it_is_the_power_of_the_paired_t_test(effect: float, seeds: int) -> None:
    ours = power.power(2 * effect, 4.0, 0.0, seeds, margin=0, level=0.99)
    assert ours == pytest.approx(TTestPower().power(effect, seeds, 0.01), abs=1e-4)


def test_without_seeds_it_is_the_power_of_the_normal_test() -> None:
    """An effect of z(0.975) + z(0.8) standard errors is found with a power of 0.8."""
    effect = scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)
    ours = power.power(effect, 0.0, 1.0, 5, margin=0, level=0.95)
    assert ours == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("difference", "of_seeds", "of_examples", "seeds", "margin"), [
    (0.0, 0.02, 0.0, 5, 0.3),
    (0.1, 0.03, 0.004, 4, 0.3),
    (0.5, 0.03, 0.01, 3, 0.3),
    (-0.5, 0.2, 0.01, 8, 0.1),
])  # fmt: skip
def test_it_is_the_share_of_simulated_studies_that_decide(
    difference: float, of_seeds: float, of_examples: float, seeds: int, margin: float
) -> None:
    """Runs are drawn one by one; the interval is made of their own variance."""
    draws, chance, level = 40_000, np.random.default_rng(0), 0.95
    runs = difference + math.sqrt(of_seeds) * chance.normal(size=(draws, seeds))
    runs += math.sqrt(of_examples) * chance.normal(size=(draws, 1))
    b = runs.var(1, ddof=1) / seeds
    half = variance.reach(b, of_examples, seeds, level)
    low, high = runs.mean(1) - half, runs.mean(1) + half
    decides = (low > 0) | (high < 0) | ((low >= -margin) & (high <= margin))
    ours = power.power(difference, of_seeds, of_examples, seeds, margin, level)
    assert ours == pytest.approx(decides.mean(), abs=0.012)


def test_the_seeds_named_are_the_textbooks() -> None:
    """An effect of one standard deviation: ten pairs for a power of 0.8 at 5 % (Cohen 1988, table 2.4)."""
    assert power.seeds_to_decide(found(1.0, 1.0, 0.0, 3), 3, 1e-9, 0.95) == (10, "")
    solved = math.ceil(TTestPower().solve_power(0.7, None, 0.01, 0.8))
    assert power.seeds_to_decide(found(0.7, 1.0, 0.0, 4), 4, 1e-9, 0.99).seeds == solved


def test_more_than_fifty_seeds_are_not_counted() -> None:
    needed = power.seeds_to_decide(found(0.1, 1.0, 0.0, 3), 3, 1e-9, 0.95)
    assert needed == (None, "more than 50 seeds would be needed")


def test_no_number_of_seeds_makes_up_for_few_examples() -> None:
    """The examples' standard error is 0.5: a difference of 1.2 needs 2.8 of them, so 0.43 at most."""
    assert power.seeds_to_decide(found(1.2, 0.1, 0.25, 3), 3, 0.1, 0.95) == (
        None,
        "examples too few, whatever the seeds",
    )
    assert power.seeds_to_decide(found(1.5, 0.1, 0.25, 3), 3, 0.1, 0.95).seeds is not None


def test_a_tie_is_found_with_more_seeds_too() -> None:
    """No difference at all: fewest seeds whose two one-sided tests find it with a power of 0.8."""
    needed = power.seeds_to_decide(found(0.0, 1.0, 0.0, 3), 3, 1.0, 0.95).seeds
    chance = np.random.default_rng(1)

    def share_of_ties(seeds: int) -> float:
        runs = chance.normal(size=(40_000, seeds))
        half = scipy_stats.t.ppf(0.975, seeds - 1) * runs.std(1, ddof=1) / math.sqrt(seeds)
        return float(np.mean(np.abs(runs.mean(1)) + half <= 1.0))

    assert share_of_ties(needed - 1) < 0.8 + 0.02
    assert share_of_ties(needed) > 0.8 - 0.06


def test_one_seed_says_nothing_about_more() -> None:
    one = statistics.difference(LOSSES[:1], OTHERS[:1])
    assert power.seeds_to_decide(one, 1, 0.1, 0.95) == (None, "")


def test_a_difference_without_spread_is_decided() -> None:
    assert power.power(0.1, 0.0, 0.0, 3, margin=0.01, level=0.95) == pytest.approx(1)
    assert power.power(0.0, 0.0, 0.0, 3, margin=0.01, level=0.95) == pytest.approx(1)
