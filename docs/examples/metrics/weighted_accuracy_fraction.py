"""The accuracy where a mistake on a text of the second class costs five times as much.

Put this file into the folder `metrics` of your own project, beside the studies. Its name is the
name of the metric, and of its column in the tables.
"""

import numpy as np

LABEL = "weighted accuracy"  # the metric's name in headings
SCORES = ("label", "predicted")  # columns of examples that it needs
HIGHER_IS_BETTER = True
LOWEST, HIGHEST = 0, 1  # None: no bound
MARGIN = 0.01  # the smallest difference that matters

COSTS = np.array([1.0, 5.0])  # of a mistake, by class


def compute(scores: dict[str, np.ndarray]) -> float:
    """The metric of some examples of one run; each array has a number for each example."""
    cost = COSTS[scores["label"].astype(int)]
    is_right = scores["label"] == scores["predicted"]
    return (cost * is_right).sum() / cost.sum()
