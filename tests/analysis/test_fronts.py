"""Pareto fronts: who is on one, and how surely."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from rankwise.analysis.fronts import front_probability, is_on_front

NUMBERS = some.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])


@given(arrays(float, some.tuples(some.just(2), some.integers(1, 8)), elements=NUMBERS))
def test_front_by_brute_force(points: np.ndarray) -> None:
    costs, values = points

    def beats(j: int, i: int) -> bool:
        is_no_worse = costs[j] <= costs[i] and values[j] >= values[i]
        return is_no_worse and (costs[j] < costs[i] or values[j] > values[i])

    numbers = range(len(costs))
    is_whole = ~np.isnan(points).any(0)
    expected = [bool(is_whole[i]) and not any(beats(j, i) for j in numbers) for i in numbers]
    found = is_on_front(costs, values)
    assert found.tolist() == expected
    assert found.any() == is_whole.any(), "a front is never empty"


def test_front_probability_is_the_share_of_draws() -> None:
    """Equal cost, values one spread apart: the better is drawn better with P(z < 1 / sqrt(2)) = 0.76."""
    values = np.random.default_rng(0).normal([[0.0], [1.0]], 1, size=(2, 20000))
    assert front_probability(np.ones((2, 1)), values) == pytest.approx([0.24, 0.76], abs=0.01)
    assert front_probability([[1.0], [2.0]], values)[0] == 1


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"costs are \(3,\), values \(4,\); allowed: one shape"):
        is_on_front(np.ones(3), np.ones(4))
