"""Pareto fronts of cost and value, and how sure a point's place on one is."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def is_on_front(
    costs: ArrayLike,  # (N,) or (N, D)
    values: ArrayLike,  # (N,) or (N, D)
) -> NDArray:
    """Whether each of N points is on the front: no other point beats it.

    A point beats another if it costs no more and is worth no less, one of the two strictly. Equal
    points share the front. A point with a nan is not on it and pushes no other off. With D columns
    there are D fronts side by side.

    Returns:
        Booleans, (N,) or (N, D).

    Raises:
        ValueError: The shapes of costs and values do not fit each other.
    """
    try:
        costs, values = np.broadcast_arrays(np.asarray(costs, float), np.asarray(values, float))
    except ValueError as error:
        raise ValueError(
            f"costs are {np.shape(costs)}, values {np.shape(values)}; allowed: one shape"
        ) from error
    # Element [i, j] says how point i stands against point j.
    is_no_worse = (costs[:, None] <= costs) & (values[:, None] >= values)
    is_better_in_one = (costs[:, None] < costs) | (values[:, None] > values)
    is_beaten = (is_no_worse & is_better_in_one).any(0)
    return ~is_beaten & ~np.isnan(costs) & ~np.isnan(values)


def front_probability(
    costs: ArrayLike,  # (N, D), or (N, 1) where costs are exact
    values: ArrayLike,  # (N, D)
) -> NDArray:
    """Share of D draws in which each point is on the front, (N,)."""
    return is_on_front(costs, values).mean(-1)
