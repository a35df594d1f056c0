"""Intervals and tests for scores of S seeds on E examples, paired by seed and example.

The mean that is estimated is the one over all seeds and all examples that might have been drawn.
variance.py says where the intervals and p-values come from, and how well they hold.

Accuracies, means of 0/1 scores, get their interval on the log-odds. A symmetric interval covers
less than 93.5 % at an accuracy of 0.97 on 200 examples (tests/analysis/test_variance_coverage.py).
"""

from collections.abc import Callable
from math import inf, nan
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from rankwise.analysis.variance import (
    checked_scores,
    components,
    linearised,
    paired_scores,
    reach,
    seed_share,
    tail,
)

# Of the search for the ends of a ratio's interval.
FIRST_STEP = 0.01
LARGEST_RATIO = 1e6  # a larger end is infinite
RATIO_TOLERANCE = 1e-9


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
        standard_error=unseen / scipy.stats.norm.isf(error_per_side),
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


def ratio(
    a: ArrayLike,  # (S, E)
    b: ArrayLike,  # (S, E)
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The mean of a over the mean of b, paired by seed and example, with its interval.

    The interval holds every ratio r for which the interval of a - r b holds 0 (Fieller 1954). So it
    leaves 1 out exactly where the interval of `difference` leaves 0 out. No symmetric interval of
    a ratio does that.

    Args:
        a: Scores that are not negative.
        b: Scores that are not negative, of the same seeds and examples.
        level: Share of intervals that shall hold the ratio.

    Returns:
        The ratio and the ends of its interval. All are nan if the mean of b is 0; the ends are nan
        with one seed. An end is 0 or inf where the data do not bound the ratio.

    Raises:
        ValueError: As `difference` does.
    """
    a, b = paired_scores(a, b)
    mean_a, mean_b = float(a.mean()), float(b.mean())
    if mean_b == 0:
        return nan, nan, nan
    value = mean_a / mean_b
    gap = difference(a, b, level=level)
    if np.isnan(gap.low):
        return value, nan, nan
    if (a == b).all():
        return value, max(0.0, 1 + gap.low / mean_b), 1 + gap.high / mean_b

    def excess(candidate: float) -> float:
        """How far the interval of a - candidate * b is from 0; negative where it holds 0."""
        at = _estimate(a - candidate * b, level)
        return max(at.low, -at.high)

    return value, _end(excess, value, -1), _end(excess, value, 1)


def _end(excess: Callable[[float], float], value: float, direction: int) -> float:
    """The end of the interval of a ratio, below (direction -1) or above (1) its value.

    The search starts at 1 where 1 is on this side. So it cannot miss on which side of the end 1 is.
    """
    inner, outer = value, value + direction * FIRST_STEP * max(value, FIRST_STEP)
    if direction * (1 - value) > 0:
        outer = 1.0
    while excess(outer) <= 0:
        if direction < 0 and outer <= 0:
            return 0.0
        if outer >= LARGEST_RATIO:
            return inf
        inner, outer = outer, outer + direction * 2 * abs(outer - value)
    if excess(inner) >= 0:  # without any spread the ratio is exact
        return inner
    return max(0.0, float(scipy.optimize.brentq(excess, inner, outer, xtol=RATIO_TOLERANCE)))


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
        low = scipy.special.expit(scipy.special.logit(share) - half)
        high = scipy.special.expit(scipy.special.logit(share) + half)
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
