"""Intervals and tests for scores by seed and example, paired across methods; Pareto fronts with their uncertainty.

Scores are (S seeds, E examples), and a mean is sought over all seeds and all examples that might have been drawn: where its
interval and p-values come from, and what was measured of them, is said in crossed.py. Accuracies get theirs on the log-odds:
symmetric ones cover less than 93.5 % at an accuracy of 0.97 on 200 examples.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import inf, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar
from statsmodels.stats.multitest import multipletests

from rankwise.analysis.variance import (
    checked,
    components,
    linear,
    pair,
    reach,
    seed_share,
    tail,
    weigh,
)

MOST_SEEDS = 100_000  # `seeds_needed` looks no further
AT_ONCE = 200  # draws, to bound memory


class Estimate(NamedTuple):
    """A mean or a difference, in the unit of the scores; with one seed all are nan but the value and 0 degrees of freedom."""

    value: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float  # of the seeds, S - 1
    seed_share: float  # of seeds and residual in the squared standard error, 0 .. 1; the rest is of the examples


def mean(scores: ArrayLike, weights: ArrayLike | None = None, level: float = 0.95) -> Estimate:
    """Mean of (S, E) scores over seeds and examples, with its interval; (S, 1), one number a run: an interval over seeds alone.

    With weights (E,), the tokens of an example, it is sum(w y) / sum(w); weights come with the examples, so the variance is
    of the linearised scores m + w / mean(w) (y - m) (Cochran 1977, section 6.4). Where every score is 0 or 1 the interval is
    of the log-odds, not symmetric; all right or all wrong, it is the exact binomial one of E examples. Leading axes are
    tables of their own: (..., S, E) gives an Estimate of arrays.

    Raises:
        ValueError: no (S, E) table of finite numbers, weights not (E,) or not positive, or level outside (0, 1).
    """
    scores = checked(scores, "scores")
    found = _estimate(linear(scores, weights), level)
    return _on_log_odds(found, scores, level) if scores.shape[-2] > 1 and _binary(scores) else found


def difference(
    a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """Mean of a - b, (S, E) each, paired by seed and example; see `mean`.

    0/1 scores equal everywhere still leave room for disagreement on examples not seen: the share that would show none among
    E with probability (1 - level) / 2, both ways.

    Raises:
        ValueError: a and b differ in shape; and what `mean` raises.
    """
    a, b = pair(a, b)
    found = _estimate(linear(a - b, weights), level)
    if a.shape[-2] == 1 or not (_binary(a) and _binary(b)):
        return found
    outside, same = (1 - level) / 2, (a == b).all((-2, -1))
    unseen = 1 - outside ** (1 / a.shape[-1])
    bounds = (0.0, -unseen, unseen, unseen / stats.norm.isf(outside), found.degrees_of_freedom, 0.0)
    return Estimate(*(np.where(same, x, y)[()] for x, y in zip(bounds, found, strict=True)))


def p_value(estimate: Estimate) -> float:
    """Two-sided p of a true difference of 0: below 0.05 where its 95 % interval leaves 0 out. nan with one seed."""
    return 2 * _tail(estimate, np.abs(estimate.value))


def equivalence(estimate: Estimate, margin: float) -> float:
    """Larger p of two one-sided tests of a true difference at or beyond +-margin (Schuirmann 1987). nan with one seed.

    Raises:
        ValueError: the margin is not positive.
    """
    return _tail(estimate, _positive(margin, "margin") - np.abs(estimate.value))


def holm(p: ArrayLike) -> NDArray:
    """p-values (K,) adjusted for a family of K (Holm 1979); a nan is no test: it stays nan and is not counted.

    Raises:
        ValueError: p is not one row of numbers from 0 to 1.
    """
    p = np.asarray(p, float)
    tested = ~np.isnan(p)
    if p.ndim != 1 or ((p[tested] < 0) | (p[tested] > 1)).any():
        raise ValueError(f"p-values are {p}; allowed: one row of numbers from 0 to 1, or nan")
    adjusted = np.full(p.shape, nan)
    if tested.any():
        adjusted[tested] = multipletests(p[tested], method="holm")[1]
    return adjusted


def seeds_needed(estimate: Estimate, seeds: int, half_width: float, level: float = 0.95) -> float:
    """Fewest seeds, 2 or more, that on as many examples should bring an interval to +-half_width. nan with one seed.

    Of the squared standard error that `seeds` seeds gave, the seeds' share falls as 1/S and the examples' stays. inf, for
    no number of seeds, where the examples' alone is too much.

    Raises:
        ValueError: half_width is not positive, or level outside (0, 1).
    """
    _positive(half_width, "half_width")
    if np.isnan(estimate.standard_error):
        return nan
    variance = estimate.standard_error**2
    b = estimate.seed_share * variance

    def enough(wanted: int) -> bool:
        return bool(reach(b * seeds / wanted, variance - b, wanted, level) <= half_width)

    return bisect_left(range(MOST_SEEDS), True, lo=2, key=enough) if enough(MOST_SEEDS) else inf


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided p of McNemar's test on 0/1 scores (E,) of two trained models; 1 where they never disagree.

    About these two models and new examples: nothing on how others, trained with other seeds, would compare.

    Raises:
        ValueError: not two rows of equal length, or a score is neither 0 nor 1.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not (_binary(a) and _binary(b)):
        raise ValueError(
            f"scores are {a.shape} and {b.shape}; allowed: two rows of equal length, each score 0 or 1"
        )
    return float(
        exact_mcnemar(
            [[np.sum((a == x) & (b == y)) for y in (1, 0)] for x in (1, 0)], exact=True
        ).pvalue
    )


def permutation(
    a: ArrayLike, b: ArrayLike, draws: int, seed: int, weights: ArrayLike | None = None
) -> float:
    """Two-sided p of (S, E) scores with a and b exchanged within examples, in all seeds of an example at once.

    The null: on an example drawn at random, the S models trained as a and the S trained as b may exchange their names. It
    is about these trained models and new examples, not about new seeds; for the methods take `p_value(difference(...))`.
    (Exchanging whole runs would be about the methods, but of three seeds there are 2^3 exchanges, so p >= 0.25.) All 2^E
    exchanges where those are at most `draws`, else a sample: p >= 2 / (draws + 1). With weights (E,), of the weighted mean.

    Raises:
        ValueError: a and b are not (S, E) both; and what `mean` raises.
    """
    a, b = pair(a, b)
    if a.ndim != 2:
        raise ValueError(f"scores are {a.shape}; allowed: (seeds, examples)")
    gaps = weigh(weights, a.shape[-1]) * (a - b).mean(0)
    gaps = gaps[gaps != 0]  # exchanging equals changes nothing
    if not gaps.size:
        return 1.0
    if 2**gaps.size <= draws:
        found = stats.permutation_test(
            (gaps,), np.mean, permutation_type="samples", n_resamples=draws
        )
        return float(found.pvalue)
    sums = _exchanged(gaps, draws, np.random.default_rng(seed))
    rounding = 1e-12 * np.abs(gaps).sum()
    beyond = [np.sum(side * sums >= side * gaps.sum() - rounding) for side in (1, -1)]
    return float(min(1, 2 * (1 + min(beyond)) / (draws + 1)))


def bootstrap(
    statistic: Callable[..., ArrayLike], tables: Sequence[ArrayLike], draws: int, seed: int
) -> NDArray:
    """A statistic of (S, E) tables on resampled seeds and examples, the same ones in every table: (draws, ...) values.

    The pigeonhole bootstrap (Owen 2007). Its percentiles are no 95 % interval with few seeds: see crossed.py.

    Raises:
        ValueError: no tables, or tables that differ in shape.
    """
    tables = [checked(table, f"table {number}") for number, table in enumerate(tables)]
    shapes = sorted({table.shape for table in tables})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"tables are {shapes}; allowed: one shape, (seeds, examples)")
    chance, (seeds, examples) = np.random.default_rng(seed), shapes[0]
    picks = (
        np.ix_(chance.integers(seeds, size=seeds), chance.integers(examples, size=examples))
        for _ in range(draws)
    )
    return np.array([statistic(*(table[pick] for table in tables)) for pick in picks])


def pareto(costs: ArrayLike, values: ArrayLike) -> NDArray:
    """Which of N points are on the front, (N,) bool: no other costs no more and is worth no less, one of them strictly.

    Equal points share the front; a point with a nan is not on it and pushes none off. (N, D): D fronts side by side.

    Raises:
        ValueError: the shapes do not fit.
    """
    try:
        costs, values = np.broadcast_arrays(np.asarray(costs, float), np.asarray(values, float))
    except ValueError as error:
        raise ValueError(
            f"costs are {np.shape(costs)}, values {np.shape(values)}; allowed: one shape"
        ) from error
    no_worse = (costs[:, None] <= costs) & (values[:, None] >= values)  # [i, j]: i against j
    better = (costs[:, None] < costs) | (values[:, None] > values)
    return ~(no_worse & better).any(0) & ~np.isnan(costs) & ~np.isnan(values)


def front_probability(costs: ArrayLike, values: ArrayLike) -> NDArray:
    """Share of D draws, as from `bootstrap`, with a point on the front: (N,) from (N, D) each; costs (N, 1) where exact."""
    return pareto(costs, values).mean(-1)


def _exchanged(gaps: NDArray, draws: int, chance: np.random.Generator) -> NDArray:
    """The sum of gaps (E,) with random signs, (draws,) times; of accuracies few gaps differ, and equal ones are one draw."""
    sizes, counts = np.unique(np.abs(gaps), return_counts=True)
    parts = [min(AT_ONCE, draws - done) for done in range(0, draws, AT_ONCE)]
    return np.concatenate(
        [(2 * chance.binomial(counts, 0.5, (part, sizes.size)) - counts) @ sizes for part in parts]
    )


def _estimate(scores: NDArray, level: float) -> Estimate:
    seeds, value, parts = scores.shape[-2], scores.mean((-2, -1)), components(scores)
    half = reach(*parts, seeds, level)
    return Estimate(
        value,
        value - half,
        value + half,
        np.sqrt(sum(parts)),
        np.full_like(half, seeds - 1)[()],
        seed_share(*parts)[()],
    )


def _on_log_odds(found: Estimate, scores: NDArray, level: float) -> Estimate:
    """The interval of a share, drawn on its log-odds (delta method); of all or of none, Clopper & Pearson's."""
    share, exact = found.value, ((1 - level) / 2) ** (1 / scores.shape[-1])
    right, wrong = scores.all((-2, -1)), ~scores.any((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        half = (found.high - share) / (share * (1 - share))
        low, high = (special.expit(special.logit(share) + side * half) for side in (-1, 1))
    low, high = (
        np.where(right, exact, np.where(wrong, 0, low)),
        np.where(wrong, 1 - exact, np.where(right, 1, high)),
    )
    return found._replace(low=low[()], high=high[()])


def _tail(estimate: Estimate, distance: float) -> float:
    """One-sided p of a distance; without any spread the value is exact."""
    error = np.asarray(estimate.standard_error)
    scaled = np.divide(distance, error, out=np.zeros(error.shape), where=error != 0)
    p = tail(scaled, estimate.seed_share, estimate.degrees_of_freedom + 1)
    return np.where(error == 0, (1 - np.sign(distance)) / 2, np.where(np.isnan(error), nan, p))[()]


def _binary(scores: NDArray) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _positive(number: float, name: str) -> float:
    if not number > 0:
        raise ValueError(f"{name} is {number}; allowed: above 0")
    return number
