"""The parts of a variance and the p-value of a distance, beside textbook formulas."""

import pytest
from scipy import stats as scipy_stats

from helpers.scores import LOSSES
from rankwise.analysis import variance


def test_components_are_the_mean_squares_of_a_two_way_table() -> None:
    """By the textbook's sums of squares, cell by cell."""
    seeds, examples = LOSSES.shape
    rows, columns, grand = LOSSES.mean(1), LOSSES.mean(0), LOSSES.mean()
    squares = 0.0
    for s in range(seeds):
        for e in range(examples):
            squares += (LOSSES[s, e] - rows[s] - columns[e] + grand) ** 2
    residual = squares / ((seeds - 1) * (examples - 1))
    by_seed = examples * sum((row - grand) ** 2 for row in rows) / (seeds - 1)
    by_example = seeds * sum((column - grand) ** 2 for column in columns) / (examples - 1)
    b, a = variance.components(LOSSES)
    assert (b, a) == pytest.approx((by_seed / LOSSES.size, (by_example - residual) / LOSSES.size))


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 1])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_p_is_the_level_at_which_the_interval_ends(share: float, seeds: int) -> None:
    for error in (0.9, 0.05, 1e-6):
        edge = variance.quantile(share, seeds, error)
        p_values = variance.tail([edge, -edge], share, seeds)
        assert p_values == pytest.approx([error / 2, 1 - error / 2])


def test_p_of_seeds_alone_is_students_and_of_examples_alone_is_normal() -> None:
    assert variance.tail(2.5, 1.0, 4) == pytest.approx(scipy_stats.t.sf(2.5, 3))
    assert variance.tail(2.5, 0.0, 4) == pytest.approx(scipy_stats.norm.sf(2.5))
