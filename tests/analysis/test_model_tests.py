"""Tests of trained models: McNemar's beside statsmodels', and exchanges counted by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from helpers.scores import LOSSES, OTHERS, RIGHT, WRONG
from rankwise.analysis.model_tests import mcnemar, permutation


def test_mcnemar_is_the_exact_one() -> None:
    table = [[np.sum((RIGHT[0] == x) & (WRONG[0] == y)) for y in (1, 0)] for x in (1, 0)]
    assert min(table[0][1], table[1][0]) > 0
    known = reference_mcnemar(table, exact=True).pvalue
    assert mcnemar(RIGHT[0], WRONG[0]) == pytest.approx(known)
    by_hand = scipy_stats.binomtest(3, 3).pvalue
    assert mcnemar([1, 1, 0, 1], [0, 0, 0, 0]) == pytest.approx(by_hand)
    assert mcnemar(RIGHT[0], RIGHT[0]) == 1


def test_permutation_counts_every_exchange() -> None:
    """Eight examples, and two more without a gap: all 2^8 signs by hand."""
    a, b = LOSSES[:, :10].copy(), OTHERS[:, :10]
    a[:, 8:] = b[:, 8:]
    gaps = (a - b).mean(0)[:8]
    signs = np.array(np.meshgrid(*[(-1, 1)] * 8)).reshape(8, -1)
    sums = gaps @ signs
    share = min(np.mean(sums >= gaps.sum() - 1e-12), np.mean(sums <= gaps.sum() + 1e-12))
    assert permutation(a, b, draws=1000, seed=0) == pytest.approx(min(1, 2 * share))


def test_one_example_that_differs_decides_nothing() -> None:
    """Its gap is as large under either of the two exchanges."""
    a, b = np.zeros((2, 5)), np.zeros((2, 5))
    a[:, 3] = 1
    assert permutation(a, b, 1999, seed=0) == 1


def test_permutation_samples_where_exchanges_are_many() -> None:
    """Near the z test that it is for many examples; the same seed gives the same p."""
    gaps = (LOSSES - OTHERS).mean(0)
    z_test = 2 * scipy_stats.norm.sf(abs(gaps.sum()) / np.sqrt((gaps**2).sum()))
    assert permutation(LOSSES, OTHERS, 4999, seed=1) == pytest.approx(z_test, abs=0.02)
    first, again = (permutation(LOSSES, OTHERS + 0.02, 4999, seed=1) for _ in range(2))
    assert first == again
    assert permutation(LOSSES, LOSSES, 99, seed=1) == 1
    smallest = 2 / (99 + 1)
    assert permutation(LOSSES, LOSSES + 1, 99, seed=1) == pytest.approx(smallest)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: mcnemar(RIGHT[0], WRONG[0, :5]), r"\(60,\) and \(5,\)"),
    (lambda: mcnemar(LOSSES[0], WRONG[0]), "each score 0 or 1"),
    (lambda: permutation(LOSSES[None], OTHERS[None], 9, 0), r"\(1, 4, 60\)"),
])  # fmt: skip
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
