"""Metrics of the user's own: one function of the scores of a run's examples.

The modules of this package are the files of the folder `metrics` of the user's project. Their
constants are read by `rankwise.core.metrics`; here `compute` is called, and what it returns is
checked, because an undefined value would go through every table unseen.
"""

import math
from collections.abc import Callable, Iterable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from rankwise.core import own_files
from rankwise.core.metrics import FOLDER, Metric


def function(metric: Metric) -> Callable[..., NDArray]:
    """An own metric as the other metrics are: a function of scores, each (..., E); returns (...).

    Args:
        metric: Of the user's own.

    Raises:
        ValueError: Its file cannot be imported; or, when the function is called, `compute` fails
            or returns what is no value of the metric.
    """
    module = own_files.load(FOLDER, metric.name)

    def of_rows(*columns: NDArray) -> NDArray:
        shape = columns[0].shape
        rows = [column.reshape(-1, shape[-1]) for column in columns]
        values = [_value(metric, module, scores) for scores in zip(*rows, strict=True)]
        return np.array(values).reshape(shape[:-1])

    return of_rows


def check_scores(metric: Metric, given: Iterable[str]) -> None:
    """Refuse a metric that needs scores which the task does not give.

    Args:
        metric: Any metric.
        given: The names of the scores.

    Raises:
        ValueError: Names the score, and those that are given.
    """
    for name in metric.scores:
        if name not in given:
            where = f"{FOLDER}/{metric.name}.py: SCORES"
            raise ValueError(f"{where}: got {name!r}, allowed: {', '.join(sorted(given))}")


def _value(metric: Metric, module: ModuleType, columns: tuple[NDArray, ...]) -> float:
    """The metric of some examples; nan where a score is not finite, as after a divergence."""
    if not all(np.isfinite(column).all() for column in columns):
        return math.nan
    scores = {}
    for name, column in zip(metric.scores, columns, strict=True):
        scores[name] = column.view()
        scores[name].flags.writeable = False  # a sort in place would change other metrics' scores
    where = f"{FOLDER}/{metric.name}.py: compute, of {len(columns[0])} examples"
    try:
        value = module.compute(scores)
    except Exception as error:  # a user's function may raise anything
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
    is_number = isinstance(value, int | float | np.number | np.ndarray) and np.ndim(value) == 0
    if not is_number or not metric.lowest <= float(value) <= metric.highest:
        raise ValueError(
            f"{where}: got {value}, allowed: one number from {metric.lowest:g} to "
            f"{metric.highest:g} (LOWEST and HIGHEST), whichever examples it is given"
        )
    return float(value)
