"""Coverage of intervals and errors of verdicts, by integral and by simulation; and why other intervals would not do."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats

from helpers.repository import ROOT
from helpers.scores import LOSSES, OTHERS
from rankwise.analysis import statistics, variance

sys.path.insert(0, str(ROOT / "benchmarks"))
import coverage

CLAIMED = [setting for setting in coverage.SETTINGS if setting.claimed]
NO_DIFFERENCE = [setting for setting in coverage.SETTINGS if "no difference" in setting.name]


def at_most_5_percent(count: int) -> float:
    """The largest rate that `count` draws of a rate of 5 % may show: three standard errors more."""
    return 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)


# By integral --------------------------------------------------------------------------------------


def missed(quantile: Callable[[np.ndarray], np.ndarray], seeds: int) -> np.ndarray:
    """Share of intervals that miss the mean, for many examples and every true share of the seeds.

    The variance of the examples is known then, and that of the seeds chi-squared: the mean over 20,000 of its quantiles.

    Args:
        quantile: Half the width of an interval in standard errors, by the estimated share of the seeds.
        seeds: How many there are.
    """
    share = np.r_[np.linspace(0, 1, 51), 0.01, 0.95, 0.99][:, None]
    draws = scipy_stats.chi2.ppf((np.arange(20000) + 0.5) / 20000, seeds - 1) / (seeds - 1)
    b, a = share * draws, 1 - share
    return 2 * scipy_stats.norm.sf(quantile(b / (a + b)) * np.sqrt(a + b)).mean(1)


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 6, 10, 50])
def test_coverage_by_integral(seeds: int) -> None:
    """What variance.py says: 95.0 .. 96.2 %, with two seeds 94.8 .. 98.4 %."""
    errors = missed(lambda share: variance.quantile(share, seeds, 0.05), seeds)
    assert errors.min() > (0.016 if seeds == 2 else 0.038)
    assert errors.max() < (0.052 if seeds == 2 else 0.0501)


@pytest.mark.parametrize("error", [0.05 / 3, 0.01, 0.05 / 15, 0.001, 0.0001])
def test_errors_at_stricter_levels_are_as_stated(error: float) -> None:
    """What simultaneous intervals need: p-values that hold in their tail."""
    for seeds in (2, 3, 4, 5, 7, 10, 20):
        errors = missed(lambda share, seeds=seeds: variance.quantile(share, seeds, error), seeds)
        assert errors.max() < 1.06 * error


def test_usual_degrees_of_freedom_would_not_do() -> None:
    """Hillis's with three seeds, and Banerjee's bound: what variance.py says of them."""

    def hillis(share: np.ndarray, error: float) -> np.ndarray:
        return scipy_stats.t.isf(error / 2, 2 / np.maximum(share, 1e-9) ** 2)

    def banerjee(share: np.ndarray) -> np.ndarray:
        z, t = scipy_stats.norm.isf(0.025), scipy_stats.t(2).isf(0.025)
        return np.sqrt(z**2 * (1 - share) + t**2 * share)

    assert missed(lambda share: hillis(share, 0.05), 3).max() == pytest.approx(0.078, abs=0.001)
    assert missed(lambda share: hillis(share, 0.05 / 15), 3).max() > 3 * 0.05 / 15
    assert missed(banerjee, 3).min() == pytest.approx(0.023, abs=0.001)


# By simulation ------------------------------------------------------------------------------------


def check_coverage(setting: coverage.Setting, shape: tuple[int, int]) -> None:
    """95 % +- 1.5, and enough tables for that to mean something: 4 standard errors."""
    assert 4 * np.sqrt(0.95 * 0.05 / coverage.TABLES) < 0.015
    assert 0.935 <= coverage.coverage(setting, shape)[0] <= 0.965


@pytest.mark.parametrize("setting", CLAIMED, ids=lambda setting: setting.name)
def test_coverage_of_three_seeds(setting: coverage.Setting) -> None:
    check_coverage(setting, (3, 200))


LARGE = [shape for shape in coverage.SIZES if shape[0] > 2 and shape != (3, 200)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("setting", CLAIMED, ids=lambda setting: setting.name)
def test_coverage_wherever_claimed(setting: coverage.Setting, shape: tuple[int, int]) -> None:
    check_coverage(setting, shape)


def test_symmetric_interval_of_an_accuracy_near_1_falls_short() -> None:
    """Why log-odds, as statistics.py says. A difference to scores of 0 has a symmetric interval."""
    setting = next(setting for setting in coverage.SETTINGS if "0.97, seeds" in setting.name)
    a, _, truth = coverage.tables(setting, (10, 200), 2000, seed=0)
    plain = statistics.difference(a, np.zeros_like(a))
    assert np.mean((plain.low <= truth) & (truth <= plain.high)) < 0.935


# The bootstrap that our intervals are compared with -----------------------------------------------


def test_plain_bootstrap_falls_short() -> None:
    """Three seeds that differ: percentiles stay inside their range."""
    setting = next(setting for setting in CLAIMED if "seeds differ much" in setting.name)
    ours, percentiles = coverage.coverage(setting, (3, 200), resampled=1000)
    assert percentiles < 0.8
    assert ours > 0.935


def test_bootstrap_over_examples_is_scipys() -> None:
    """One seed: percentiles and standard error within what 20,000 resamples leave open."""
    drawn = coverage.bootstrap(np.mean, [LOSSES[:1]], 20000, seed=2)
    known = scipy_stats.bootstrap(
        (LOSSES[0],), np.mean, n_resamples=20000, rng=3, method="percentile"
    )
    interval = tuple(known.confidence_interval)
    assert drawn.std(ddof=1) == pytest.approx(known.standard_error, rel=0.05)
    assert np.quantile(drawn, (0.025, 0.975)) == pytest.approx(interval, abs=0.02)


def test_bootstrap_picks_the_same_seeds_and_examples_in_every_table() -> None:
    def largest_gap(a: np.ndarray, b: np.ndarray) -> float:
        return np.abs(a + 1 - b).max()

    gaps = coverage.bootstrap(largest_gap, [LOSSES, LOSSES + 1], 50, seed=0)
    assert gaps == pytest.approx(np.zeros(50))
    assert coverage.bootstrap(lambda a: (a.min(), a.max()), [LOSSES], 7, seed=0).shape == (7, 2)


@pytest.mark.parametrize("tables", [[], [LOSSES, OTHERS[:2]]])
def test_tables_of_several_shapes_are_refused(tables: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        coverage.bootstrap(np.mean, tables, 9, seed=0)


# Errors of verdicts -------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", NO_DIFFERENCE, ids=lambda setting: setting.name)
@pytest.mark.parametrize("seeds", [2, 3])
def test_better_is_said_of_equals_in_at_most_5_percent(
    setting: coverage.Setting, seeds: int
) -> None:
    a, b, _ = coverage.tables(setting, (seeds, 200), 4000, seed=11)
    is_better = statistics.p_value(statistics.difference(a, b)) < 0.05
    assert is_better.mean() <= at_most_5_percent(4000)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.4])
def test_better_is_said_in_at_most_5_percent_of_families(spread: float) -> None:
    """Six equal methods, fifteen pairs: a false `better` anywhere in at most 5 % of 2,000 families."""
    chance = np.random.default_rng(3)
    methods = []
    for _ in range(6):
        effects = spread * chance.normal(size=(2000, 3, 1)) + chance.normal(size=(2000, 1, 100)) / 2
        methods.append(effects)
    methods = [effects + chance.normal(size=(2000, 3, 100)) for effects in methods]
    misses = np.zeros(2000, bool)
    for number, a in enumerate(methods):
        for b in methods[:number]:
            gap = statistics.difference(a, b, level=1 - 0.05 / 15)
            misses |= (gap.low > 0) | (gap.high < 0)
    assert misses.mean() <= 0.05


def test_tied_is_said_of_unequals_in_at_most_5_percent() -> None:
    """A true difference at the margin."""
    chance = np.random.default_rng(4)
    gaps = 0.1 + chance.normal(size=(4000, 5, 1)) * 0.03 + chance.normal(size=(4000, 1, 100)) * 0.2
    estimate = statistics.mean(gaps + chance.normal(size=(4000, 5, 100)) * 0.2)
    is_tied = statistics.equivalence(estimate, 0.1) < 0.05
    assert is_tied.mean() <= at_most_5_percent(4000)
