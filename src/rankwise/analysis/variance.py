"""The variance of a mean over two crossed random samples, S seeds and E examples, and what follows: intervals and p-values.

From the mean squares of the (S, E) table, the variance of its mean has two parts,
    b = MS_seed / SE                      seeds and residual: what more seeds shrink; S - 1 degrees of freedom
    a = (MS_example - MS_residual) / SE   examples: what only more examples shrink; 0 where negative
as in studies of many readers and many cases (Obuchowski & Rockette 1995; Hillis 2007). Those take t(df) sqrt(a + b) for half
an interval, df after Satterthwaite. But with three seeds b is often small by luck, df then large: 92.2 % are covered, not 95,
and at 5 % / 15, as for fifteen pairs after Holm, errors are over three times as many as stated. Here the squared quantile goes
from the normal z^2 to Student's t^2, of S - 1 degrees, with the share s = b / (a + b) of the seeds in the variance:
    z^2 + (t^2 - z^2) s - min(t^2 - z^2, 6.5 (t - z)) s (1 - s)^2
Without its last term that is never too short (Banerjee 1961: the chi-squared distribution function is concave), but covers up
to 97.7 % with three seeds. The last term is ours, found by the integral that follows. With many examples a is known and b is
chi-squared, so coverage is an integral over b: for every true share, at 95 %, it is 95.0 .. 96.2 with three seeds or more and
94.8 .. 98.4 with two; at stricter levels errors are at most 1.06 times as many as stated. tests/analysis/test_variance_coverage.py
integrates; benchmarks/coverage.md simulates, few examples and 0/1 scores too. Above 96.5: two seeds; 0/1 scores with fewer than
ten examples wrong, or in dispute between two runs. Where such scores tie all seeds exactly, MS_residual stands in for MS_seed.

Why not percentiles of a bootstrap: with three seeds they stay inside the range of the seeds, which holds the mean 75 times
in 100 where seeds matter most; where seeds do not differ, resampling seeds and examples (Owen 2007, the pigeonhole
bootstrap) counts the residual three times and is too wide. benchmarks/coverage.md has both.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit


def components(scores: NDArray) -> tuple[NDArray, NDArray]:
    """The variance of the mean of (..., S, E) scores in two parts, (...,) each: b, seeds and residual, and a, examples.

    Where the seeds tie exactly, as 0/1 scores may, the residual stands in for a b of 0. nan with one seed.
    """
    seeds, examples = scores.shape[-2:]
    if seeds == 1:
        return (np.full(scores.shape[:-2], np.nan),) * 2
    centred = scores - scores.mean((-2, -1), keepdims=True)
    by_seed, by_example = centred.mean(-1), centred.mean(-2)
    b = by_seed.var(-1, ddof=1) / seeds
    if examples == 1:
        return b, np.zeros_like(b)
    residual = np.square(centred - by_seed[..., None] - by_example[..., None, :]).sum((-2, -1))
    residual /= (seeds - 1) * (examples - 1) * seeds * examples
    return np.where(b > 1e-12 * residual, b, residual), np.maximum(
        by_example.var(-1, ddof=1) / examples - residual, 0
    )


def seed_share(b: ArrayLike, a: ArrayLike) -> NDArray:
    """The part of b in the variance a + b; 0 where there is none, nan with one seed."""
    total = np.add(a, b)
    return np.divide(b, total, out=np.zeros_like(total), where=total != 0)


def quantile(share: ArrayLike, seeds: int, error: ArrayLike) -> NDArray:
    """Half a two-sided interval that errs with probability `error`, in standard errors: see the head of this module."""
    z, t = -ndtri(np.divide(error, 2)), -stdtrit(seeds - 1, np.divide(error, 2))
    less = (t - z) * np.minimum(t + z, 6.5) * share * np.subtract(1, share) ** 2
    return np.sqrt(z**2 + (t**2 - z**2) * share - less)


def reach(b: ArrayLike, a: ArrayLike, seeds: int, level: float) -> NDArray:
    """Half the width of an interval, from both parts of the variance.

    Raises:
        ValueError: level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed: between 0 and 1")
    return quantile(seed_share(b, a), seeds, 1 - level) * np.sqrt(np.add(a, b))


def tail(distance: ArrayLike, share: ArrayLike, seeds: int) -> NDArray:
    """One-sided p of a distance in standard errors, `quantile` the other way round: by bisection of log p, from 1e-60."""
    size = np.abs(distance)
    low, high = np.full(np.shape(size), np.log(1e-60)), np.zeros(np.shape(size))
    for _ in range(60):
        middle = (low + high) / 2
        beyond = quantile(share, seeds, np.exp(middle)) > size
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return np.where(np.less(distance, 0), 1 - np.exp(high) / 2, np.exp(high) / 2)


def checked(scores: ArrayLike, name: str) -> NDArray:
    """Scores (..., S, E) as numbers; ValueError names what is wrong."""
    scores = np.asarray(scores, float)
    if scores.ndim < 2 or not scores.size or not np.isfinite(scores).all():
        bad = np.sum(~np.isfinite(scores))
        raise ValueError(
            f"{name}: shape {scores.shape}, {bad} nan or infinite; allowed: (seeds, examples) of finite numbers"
        )
    return scores


def pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray, NDArray]:
    """Two tables of the same seeds and examples; ValueError names both shapes."""
    a, b = checked(a, "a"), checked(b, "b")
    if a.shape != b.shape:
        raise ValueError(
            f"a is {a.shape}, b is {b.shape}; allowed: the same seeds and examples for both"
        )
    return a, b


def weigh(weights: ArrayLike | None, examples: int) -> NDArray:
    """Weights (E,) with mean 1, all 1 for None; ValueError unless positive, one an example."""
    weights = np.ones(examples) if weights is None else np.asarray(weights, float)
    if weights.shape != (examples,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"weights: shape is {weights.shape}; allowed: {examples} positive numbers, one an example"
        )
    return weights / weights.mean()


def linear(scores: NDArray, weights: ArrayLike | None) -> NDArray:
    """Scores whose plain mean is the weighted one and, to first order, whose variance is that of it (Cochran 1977, 6.4)."""
    shares = weigh(weights, scores.shape[-1])
    centre = (scores * shares).mean((-2, -1), keepdims=True)
    return centre + shares * (scores - centre)
