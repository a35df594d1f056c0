"""The variance of a mean over random seeds and examples, and the intervals that follow.

S seeds and E examples are two crossed random samples.

A score is mean + effect of its seed + effect of its example + residual, all effects random. From
the mean squares of the (S, E) table of scores, the variance of its mean has two parts:

    b = MS_seed / (S E)                       seeds and residual, S - 1 degrees of freedom
    a = (MS_example - MS_residual) / (S E)    examples; 0 where it would be negative

More seeds shrink b; only more examples shrink a. This is the analysis of studies of many readers
and many cases (Obuchowski & Rockette 1995; Hillis 2007).

Where we differ. Those studies take t(df) sqrt(a + b) for half an interval, with Satterthwaite's df.
With three seeds b is often small by luck, and df is then large: 92.2 % of the intervals hold the
mean instead of 95 %. At an error of 5 % / 15, as fifteen simultaneous intervals need, they
miss more than three times as often as stated. Here the squared quantile q^2 goes from the normal
z^2 to Student's t^2 (S - 1 degrees of freedom) with the seeds' share of the variance,
s = b / (a + b):

    q^2 = z^2 + (t^2 - z^2) s - min(t^2 - z^2, 6.5 (t - z)) s (1 - s)^2

Without its last term the interval is never too short (Banerjee 1961: the chi-squared distribution
function is concave), but with three seeds it covers up to 97.7 %. The last term is ours. Its
constant was chosen by an integral: with many examples a is known and b is chi-squared, so the
coverage for a true share s is an integral over b. At 95 % it is 95.0 .. 96.2 % for every s with
three seeds or more, and 94.8 .. 98.4 % with two. At stricter levels the error is at most 1.06 times
the stated one.

tests/analysis/test_variance_coverage.py computes the integral; benchmarks/coverage.md has
simulations with few examples and with 0/1 scores. Coverage is above 96.5 % only for two seeds, and
for 0/1 scores with fewer than ten examples wrong, or in dispute between two runs. Where 0/1 scores
tie all seeds exactly, MS_residual stands in for MS_seed.

Why not percentiles of a bootstrap. With three seeds they stay inside the range of the seeds, which
holds the mean 75 times in 100 where seeds matter most. Where seeds do not differ, resampling seeds
and examples (Owen 2007, the pigeonhole bootstrap) counts the residual three times and is too wide.
benchmarks/coverage.md has both.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

# Bounds t + z in the last term; chosen by the integral described above.
LARGEST_SUM = 6.5
SMALLEST_P = 1e-60  # `tail` looks no further
BISECTIONS = 60  # leave log p known to about 1e-16
TIE = 1e-12  # a variance of seeds below this share of the residual is rounding


def components(
    scores: NDArray,  # (..., S, E)
) -> tuple[NDArray, NDArray]:
    """The two parts of the variance of the mean, one number for each table.

    Returns:
        b (...,), of seeds and residual, and a (...,), of examples. Both are nan with one seed.
    """
    seeds, examples = scores.shape[-2:]
    if seeds == 1:
        return (np.full(scores.shape[:-2], np.nan),) * 2
    centred = scores - scores.mean((-2, -1), keepdims=True)
    by_seed = centred.mean(-1)  # (..., S)
    by_example = centred.mean(-2)  # (..., E)
    b = by_seed.var(-1, ddof=1) / seeds
    if examples == 1:
        return b, np.zeros_like(b)
    residuals = centred - by_seed[..., None] - by_example[..., None, :]
    residual = np.square(residuals).sum((-2, -1))
    residual /= (seeds - 1) * (examples - 1) * seeds * examples
    a = np.maximum(by_example.var(-1, ddof=1) / examples - residual, 0)
    # 0/1 scores may tie all seeds by luck. A b of 0 would then claim certainty that nobody has.
    return np.where(b > TIE * residual, b, residual), a


def seed_share(b: ArrayLike, a: ArrayLike) -> NDArray:
    """The part of b in the variance a + b; 0 where the variance is 0, nan with one seed."""
    total = np.add(a, b)
    return np.divide(b, total, out=np.zeros_like(total), where=total != 0)


def quantile(share: ArrayLike, seeds: int, error: ArrayLike) -> NDArray:
    """Half the width of a two-sided interval, in standard errors: q of the module's formula.

    Args:
        share: The seeds' part s of the variance, 0 .. 1.
        seeds: S, 2 or more.
        error: Probability that the interval misses the mean, 0 .. 1.
    """
    z = -ndtri(np.divide(error, 2))
    t = -stdtrit(seeds - 1, np.divide(error, 2))
    # (t - z) min(t + z, 6.5) is the min(t^2 - z^2, 6.5 (t - z)) of the formula.
    correction = (t - z) * np.minimum(t + z, LARGEST_SUM) * share * np.subtract(1, share) ** 2
    return np.sqrt(z**2 + (t**2 - z**2) * share - correction)


def reach(b: ArrayLike, a: ArrayLike, seeds: int, level: float) -> NDArray:
    """Half the width of an interval, in the unit of the scores.

    Args:
        b: Variance of seeds and residual, from `components`.
        a: Variance of examples, from `components`.
        seeds: S.
        level: Share of intervals that shall hold the mean, such as 0.95.

    Raises:
        ValueError: The level is outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed: between 0 and 1")
    return quantile(seed_share(b, a), seeds, 1 - level) * np.sqrt(np.add(a, b))


def tail(distance: ArrayLike, share: ArrayLike, seeds: int) -> NDArray:
    """One-sided p-value of a distance in standard errors: the inverse of `quantile`.

    `quantile` has no closed inverse. It falls as the error grows, so a bisection of log p finds it.
    """
    size = np.abs(distance)
    low, high = np.full(np.shape(size), np.log(SMALLEST_P)), np.zeros(np.shape(size))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_wider = quantile(share, seeds, np.exp(middle)) > size
        low, high = np.where(is_wider, middle, low), np.where(is_wider, high, middle)
    p_beyond = np.exp(high) / 2
    return np.where(np.less(distance, 0), 1 - p_beyond, p_beyond)


# Checked input ------------------------------------------------------------------------------------


def checked_scores(scores: ArrayLike, name: str) -> NDArray:
    """Scores (..., S, E) as an array of floats; `name` says in messages whose they are.

    Raises:
        ValueError: The scores are not a non-empty (..., S, E) table of finite numbers.
    """
    scores = np.asarray(scores, float)
    if scores.ndim < 2 or not scores.size or not np.isfinite(scores).all():
        not_finite = np.sum(~np.isfinite(scores))
        raise ValueError(
            f"{name}: shape {scores.shape}, {not_finite} nan or infinite; "
            "allowed: (seeds, examples) of finite numbers"
        )
    return scores


def paired_scores(a: ArrayLike, b: ArrayLike) -> tuple[NDArray, NDArray]:
    """Two tables of scores of the same seeds and examples.

    Raises:
        ValueError: The shapes differ, or a table is not one of finite numbers.
    """
    a, b = checked_scores(a, "a"), checked_scores(b, "b")
    if a.shape != b.shape:
        raise ValueError(
            f"a is {a.shape}, b is {b.shape}; allowed: the same seeds and examples for both"
        )
    return a, b


def relative_weights(weights: ArrayLike | None, examples: int) -> NDArray:
    """Weights of the examples (E,), scaled to a mean of 1; all 1 for None.

    Raises:
        ValueError: The weights are not E positive finite numbers.
    """
    weights = np.ones(examples) if weights is None else np.asarray(weights, float)
    if weights.shape != (examples,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"weights: shape is {weights.shape}; "
            f"allowed: {examples} positive numbers, one an example"
        )
    return weights / weights.mean()


def linearised(
    scores: NDArray,  # (..., S, E)
    weights: ArrayLike | None,  # (E,)
) -> NDArray:
    """Scores whose plain mean is the weighted mean m, and whose variance is its variance.

    A weighted mean is a ratio of two sums that both vary with the examples. To first order it is
    the plain mean of m + w / mean(w) (y - m).

    References:
        Cochran 1977, Sampling Techniques, section 6.4.
    """
    relative = relative_weights(weights, scores.shape[-1])
    weighted_mean = (scores * relative).mean((-2, -1), keepdims=True)
    return weighted_mean + relative * (scores - weighted_mean)
