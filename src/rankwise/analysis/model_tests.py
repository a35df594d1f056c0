"""Tests of trained models, not of methods: whether these very models differ on unseen examples.

They say nothing about models trained with other random seeds. With one seed they are all that can
be tested; for the methods take `statistics.p_value(statistics.difference(a, b))`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

from rankwise.analysis.statistics import is_binary
from rankwise.analysis.variance import paired_scores, relative_weights

DRAWS_AT_ONCE = 200  # bounds memory


def mcnemar(
    a: ArrayLike,  # (E,)
    b: ArrayLike,  # (E,)
) -> float:
    """Exact two-sided p-value of McNemar's test on the 0/1 scores of two models.

    It is 1 where the models never disagree.

    Raises:
        ValueError: a and b are not two rows of equal length, or a score is neither 0 nor 1.

    References:
        McNemar 1947.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not (is_binary(a) and is_binary(b)):
        raise ValueError(
            f"scores are {a.shape} and {b.shape}; "
            "allowed: two rows of equal length, each score 0 or 1"
        )
    both_right = np.sum((a == 1) & (b == 1))
    only_a, only_b = np.sum((a == 1) & (b == 0)), np.sum((a == 0) & (b == 1))
    both_wrong = np.sum((a == 0) & (b == 0))
    table = [[both_right, only_a], [only_b, both_wrong]]
    return float(exact_mcnemar(table, exact=True).pvalue)


def permutation(
    a: ArrayLike,  # (S, E)
    b: ArrayLike,  # (S, E)
    draws: int,
    seed: int,
    weights: ArrayLike | None = None,  # (E,)
) -> float:
    """Two-sided p-value of a difference, by exchanging a and b within examples.

    The null hypothesis: on an example drawn at random, the S models of method a and the S models of
    method b may swap names. An exchange swaps an example in all seeds at once. Swapping whole runs
    would test the methods instead, but three seeds have only 2^3 such exchanges, so p would be 0.25
    at least.

    Args:
        a: Scores of one method's models.
        b: Scores of the other's, of the same seeds and examples.
        draws: Exchanges to sample. All 2^E are taken where these are not more.
        seed: Of the random exchanges.
        weights: What each example counts; tests the weighted mean.

    Returns:
        The p-value, 2 / (draws + 1) at least where exchanges are sampled.

    Raises:
        ValueError: a and b are not both (S, E) tables of finite numbers, or the weights are not
            (E,) or not positive.
    """
    a, b = paired_scores(a, b)
    if a.ndim != 2:
        raise ValueError(f"scores are {a.shape}; allowed: (seeds, examples)")
    gaps = relative_weights(weights, a.shape[-1]) * (a - b).mean(0)  # (E,)
    gaps = gaps[gaps != 0]  # swapping equal scores changes nothing
    if gaps.size < 2:  # one gap is as large in both of its exchanges
        return 1.0
    if 2**gaps.size <= draws:
        exact = stats.permutation_test(
            (gaps,), np.mean, permutation_type="samples", n_resamples=draws
        )
        return float(exact.pvalue)
    sums = _exchanged_sums(gaps, draws, np.random.default_rng(seed))
    rounding = 1e-12 * np.abs(gaps).sum()
    as_large = np.sum(sums >= gaps.sum() - rounding)
    as_small = np.sum(sums <= gaps.sum() + rounding)
    # The observed order is one exchange too: hence the two + 1 (Phipson & Smyth 2010).
    return float(min(1, 2 * (1 + min(as_large, as_small)) / (draws + 1)))


def _exchanged_sums(
    gaps: NDArray,  # (E,)
    draws: int,
    chance: np.random.Generator,
) -> NDArray:
    """The sum of the gaps under random signs, `draws` times.

    Gaps of accuracies take few values. Among n gaps of equal size, the number with a plus is
    binomial, so one draw serves all n.
    """
    sizes, counts = np.unique(np.abs(gaps), return_counts=True)
    sums = []
    for start in range(0, draws, DRAWS_AT_ONCE):
        rows = min(DRAWS_AT_ONCE, draws - start)
        positive = chance.binomial(counts, 0.5, (rows, sizes.size))
        sums.append((2 * positive - counts) @ sizes)
    return np.concatenate(sums)
