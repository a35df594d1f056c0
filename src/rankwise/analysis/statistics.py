"""Intervals and tests for scores of S seeds on E examples, paired by seed and example.

The mean that is estimated is the one over all seeds and all examples that might have been drawn.
variance.py says where the intervals and p-values come from, and how well they hold.

Accuracies, means of 0/1 scores, get their interval on the log-odds. A symmetric interval covers
less than 93.5 % at an accuracy of 0.97 on 200 examples (tests/analysis/test_variance_coverage.py).
"""

from bisect import bisect_left
from math import inf, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from rankwise.analysis.variance import (
    checked_scores,
    components,
    linearised,
    paired_scores,
    reach,
    seed_share,
    tail,
)

MOST_SEEDS = 100_000  # `seeds_needed` looks no further


class Estimate(NamedTuple):
    """A mean or a difference, in the unit of the scores.

    With one seed, `value` is a number, `degrees_of_freedom` is 0 and the rest is nan. Fields are
    arrays where the scores were several tables.
    """

    value: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float  # of the seeds, S - 1
    seed_share: float  # part of seeds and residual in the squared standard error, 0 .. 1


def mean(
    scores: ArrayLike,  # (..., S, E)
    weights: ArrayLike | None = None,  # (E,)
    level: float = 0.95,
) -> Estimate:
    """The mean over seeds and examples, with its interval.

    Args:
        scores: One or more tables (S, E). A table (S, 1), one number a run, gives an interval over
            seeds alone. Leading axes are tables of their own and give an Estimate of arrays.
        weights: What each example counts, such as its tokens; the mean is then sum(w y) / sum(w).
            Weights belong to the examples and vary with them, so the variance is that of the
            linearised scores (Cochran 1977, section 6.4).
        level: Share of intervals that shall hold the mean.

    Returns:
        The estimate. Where every score is 0 or 1 its interval is one of the log-odds and not
        symmetric; where all scores are 1, or all are 0, it is the exact binomial interval of E
        examples.

    Raises:
        ValueError: The scores are not a table of finite numbers, the weights are not (E,) or not
            positive, or the level is outside (0, 1).
    """
    scores = checked_scores(scores, "scores")
    estimate = _estimate(linearised(scores, weights), level)
    if scores.shape[-2] > 1 and is_binary(scores):
        return _on_log_odds(estimate, scores, level)
    return estimate


def difference(
    a: ArrayLike,  # (..., S, E)
    b: ArrayLike,  # (..., S, E)
    weights: ArrayLike | None = None,  # (E,)
    level: float = 0.95,
) -> Estimate:
    """The mean of a - b, paired by seed and example; arguments as of `mean`.

    Where two 0/1 tables are equal everywhere, examples that were not seen may still tell them
    apart. The interval then ends at the share of such examples that would show none among E with
    probability (1 - level) / 2, on both sides.

    Raises:
        ValueError: a and b differ in shape; and as `mean` does.
    """
    a, b = paired_scores(a, b)
    estimate = _estimate(linearised(a - b, weights), level)
    seeds, examples = a.shape[-2:]
    if seeds == 1 or not (is_binary(a) and is_binary(b)):
        return estimate
    error_per_side = (1 - level) / 2
    unseen = 1 - error_per_side ** (1 / examples)  # largest share that E equal examples leave open
    if_equal = Estimate(
        value=0.0,
        low=-unseen,
        high=unseen,
        standard_error=unseen / stats.norm.isf(error_per_side),
        degrees_of_freedom=estimate.degrees_of_freedom,
        seed_share=0.0,
    )
    is_equal = (a == b).all((-2, -1))
    fields = zip(if_equal, estimate, strict=True)
    return Estimate(*(np.where(is_equal, equal, other)[()] for equal, other in fields))


def p_value(estimate: Estimate) -> float:
    """Two-sided p-value of a true value of 0; nan with one seed.

    It is below 0.05 exactly where the 95 % interval leaves 0 out, unless that interval is one of
    the log-odds.
    """
    return 2 * _tail(estimate, np.abs(estimate.value))


def equivalence(estimate: Estimate, margin: float) -> float:
    """p-value of a true difference at or beyond +-margin: the larger one of two one-sided tests.

    Args:
        estimate: A difference.
        margin: The smallest difference that matters, in the unit of the scores.

    Returns:
        The p-value; small where the true difference lies inside the margin, nan with one seed.

    Raises:
        ValueError: The margin is not positive.

    References:
        Schuirmann 1987.
    """
    _check_positive(margin, "margin")
    return _tail(estimate, margin - np.abs(estimate.value))


def holm(
    p: ArrayLike,  # (K,)
) -> NDArray:
    """p-values adjusted for a family of K tests.

    A nan stands for a test that could not be made. It stays nan and does not count in K.

    Raises:
        ValueError: p is not one row of numbers from 0 to 1.

    References:
        Holm 1979.
    """
    p = np.asarray(p, float)
    is_tested = ~np.isnan(p)
    tested = p[is_tested]
    if p.ndim != 1 or ((tested < 0) | (tested > 1)).any():
        raise ValueError(f"p-values are {p}; allowed: one row of numbers from 0 to 1, or nan")
    adjusted = np.full(p.shape, nan)
    if tested.size:
        adjusted[is_tested] = multipletests(tested, method="holm")[1]
    return adjusted


def seeds_needed(estimate: Estimate, seeds: int, half_width: float, level: float = 0.95) -> float:
    """Fewest seeds that should bring the interval to +-half_width, on as many examples.

    More seeds divide the seeds' part of the variance and leave the examples' part as it is.

    Args:
        estimate: The mean or difference that was found.
        seeds: With how many seeds it was found.
        half_width: Half the width of the wanted interval, in the unit of the scores.
        level: Of the wanted interval.

    Returns:
        2 or more seeds; inf where the examples' part alone is too large; nan for an estimate of one
        seed.

    Raises:
        ValueError: half_width is not positive, or the level is outside (0, 1).
    """
    _check_positive(half_width, "half_width")
    if np.isnan(estimate.standard_error):
        return nan
    variance = estimate.standard_error**2
    b = estimate.seed_share * variance
    a = variance - b

    def is_enough(wanted: int) -> bool:
        return bool(reach(b * seeds / wanted, a, wanted, level) <= half_width)

    if not is_enough(MOST_SEEDS):
        return inf
    return bisect_left(range(MOST_SEEDS), True, lo=2, key=is_enough)


def is_binary(scores: NDArray) -> bool:
    """Whether every score is 0 or 1."""
    return bool(((scores == 0) | (scores == 1)).all())


def _estimate(
    scores: NDArray,  # (..., S, E)
    level: float,
) -> Estimate:
    """The plain mean with its symmetric interval."""
    seeds = scores.shape[-2]
    value = scores.mean((-2, -1))
    b, a = components(scores)
    half = reach(b, a, seeds, level)
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        standard_error=np.sqrt(b + a),
        degrees_of_freedom=np.full_like(half, seeds - 1)[()],
        seed_share=seed_share(b, a)[()],
    )


def _on_log_odds(
    estimate: Estimate,
    scores: NDArray,  # (..., S, E), each 0 or 1
    level: float,
) -> Estimate:
    """The estimate of a share with an interval that is symmetric on its log-odds.

    Half its width there is that of the share divided by p (1 - p), the delta method. The log-odds
    of 0 and of 1 are infinite: for all or none, the interval is the exact binomial one (Clopper &
    Pearson 1934) of E examples.
    """
    share = estimate.value
    exact = ((1 - level) / 2) ** (1 / scores.shape[-1])
    all_right, all_wrong = scores.all((-2, -1)), ~scores.any((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):  # shares of 0 and 1, replaced below
        half = (estimate.high - share) / (share * (1 - share))
        low = special.expit(special.logit(share) - half)
        high = special.expit(special.logit(share) + half)
    low = np.where(all_right, exact, np.where(all_wrong, 0, low))
    high = np.where(all_wrong, 1 - exact, np.where(all_right, 1, high))
    return estimate._replace(low=low[()], high=high[()])


def _tail(estimate: Estimate, distance: float) -> float:
    """One-sided p-value of a distance in the unit of the scores.

    Without any spread the value is exact, and p is 0, 1, or 0.5 at a distance of 0.
    """
    error = np.asarray(estimate.standard_error)
    scaled = np.divide(distance, error, out=np.zeros(error.shape), where=error != 0)
    p = tail(scaled, estimate.seed_share, estimate.degrees_of_freedom + 1)
    if_exact = (1 - np.sign(distance)) / 2
    return np.where(error == 0, if_exact, np.where(np.isnan(error), nan, p))[()]


def _check_positive(number: float, name: str) -> None:
    if not number > 0:
        raise ValueError(f"{name} is {number}; allowed: above 0")
