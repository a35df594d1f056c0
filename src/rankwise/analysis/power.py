"""How many random seeds would decide a comparison, were what was found true.

A study of S seeds decides a pair if the interval of its difference leaves 0 out, or lies inside the
margin. Its power is the probability that it does. Planning takes the difference and the variances
that were found for the true ones, as every such plan from a pilot study does: the answer is a guide
and no promise. The difference of S seeds is normal around the true one, and the seeds' part of its
variance is estimated with S - 1 degrees of freedom:

    D ~ N(delta, b + a)    b_found ~ b chi^2(S - 1) / (S - 1)    h = half the interval, from b_found
    power = E[ P(|D| > h) + P(|D| <= margin - h) ]

h is that of variance.py. The examples' part a is taken as known. Without it the first term is the
power of the paired t test, by the noncentral t distribution (Cohen 1988, chapter 2), and the second
the power of two one-sided tests (Phillips 1990).
"""

import functools
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from rankwise.analysis.statistics import Estimate
from rankwise.analysis.variance import quantile, reach

POWER = 0.8  # Cohen's convention
MOST_SEEDS = 50  # more are named as "more than 50": nobody plans with them
NODES = 100  # of the integral over the chi-squared distribution
MORE_SEEDS = f"more than {MOST_SEEDS} seeds would be needed"
TOO_FEW_EXAMPLES = "examples too few, whatever the seeds"


class Needed(NamedTuple):
    """How many seeds would decide a comparison; why none are named, where none are."""

    seeds: int | None
    reason: str  # MORE_SEEDS, TOO_FEW_EXAMPLES or empty


def seeds_to_decide(found: Estimate, seeds: int, margin: float, level: float) -> Needed:
    """The fewest seeds, more than there are, that decide a pair with the probability POWER.

    Args:
        found: The difference, as estimated.
        seeds: With how many seeds it was found.
        margin: The smallest difference that matters, in the unit of the difference.
        level: Of the interval that decides.

    Returns:
        The number of seeds, 3 to MOST_SEEDS. No number and no reason after one seed, whose variance
        is not known.
    """
    if np.isnan(found.standard_error):
        return Needed(None, "")
    variance = found.standard_error**2
    of_one_seed = found.seed_share * variance * seeds
    of_examples = variance * (1 - found.seed_share)
    for wanted in range(seeds + 1, MOST_SEEDS + 1):
        if power(found.value, of_one_seed, of_examples, wanted, margin, level) >= POWER:
            return Needed(wanted, "")
    half_width = reach(0.0, of_examples, 2, level)  # of endless seeds: only the examples are left
    if _decided(found.value, of_examples, half_width, margin) >= POWER:
        return Needed(None, MORE_SEEDS)
    return Needed(None, TOO_FEW_EXAMPLES)


def power(
    difference: float,
    of_one_seed: float,
    of_examples: float,
    seeds: int,
    margin: float,
    level: float,
) -> float:
    """The probability that a study decides a pair.

    Args:
        difference: The true difference.
        of_one_seed: Variance of the difference over seeds, residual included, for one seed.
        of_examples: Part of the variance of the mean difference that more seeds leave as it is.
        seeds: Of the planned study, 2 or more.
        margin: The smallest difference that matters; 0 if only a difference from 0 counts.
        level: Of the interval that decides.

    Returns:
        The probability, 0 .. 1.
    """
    relative, weights = _found_variances(seeds)
    b = of_one_seed / seeds
    b_found = b * relative
    total = b_found + of_examples
    share = np.divide(b_found, total, out=np.zeros_like(total), where=total > 0)
    half_widths = quantile(share, seeds, 1 - level) * np.sqrt(total)
    decided = _decided(difference, b + of_examples, half_widths, margin)
    return float(decided @ weights)


@functools.cache
def _found_variances(seeds: int) -> tuple[NDArray, NDArray]:
    """Variances that S seeds may find, over the true one, and the weight of each in the integral.

    They are the quantiles of chi^2(S - 1) / (S - 1) at Gauss and Legendre's points.
    """
    points, weights = np.polynomial.legendre.leggauss(NODES)
    chances = (points + 1) / 2  # from (-1, 1) to (0, 1)
    return scipy.stats.chi2.ppf(chances, seeds - 1) / (seeds - 1), weights / 2


def _decided(difference: float, variance: float, half_width: ArrayLike, margin: float) -> NDArray:
    """The probability that an interval of a known half width decides."""
    half_width = np.asarray(half_width, float)
    if variance == 0:
        is_tied = abs(difference) + half_width <= margin
        return ((abs(difference) > half_width) | is_tied).astype(float)
    spread = np.sqrt(variance)

    def beyond(bound: NDArray) -> NDArray:
        """P(|D| > bound)."""
        above = scipy.special.ndtr((difference - bound) / spread)
        return above + scipy.special.ndtr((-difference - bound) / spread)

    room = margin - half_width  # |D| up to here is tied
    tied = np.where(room > 0, 1 - beyond(np.maximum(room, 0)), 0)
    return np.where(room >= half_width, 1, beyond(half_width) + tied)
