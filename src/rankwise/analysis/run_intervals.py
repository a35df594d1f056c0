"""The interval of one run's metric, over the examples that it was reported on.

A run has one seed, so the interval says how far another sample of examples could have moved the
metric, and nothing about another seed: those are the intervals of `statistics.mean`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from rankwise.analysis import metrics
from rankwise.analysis.statistics import is_binary
from rankwise.core.metrics import METRICS, Metric


class RunInterval(NamedTuple):
    """A metric of one run.

    Attributes:
        metric: The metric.
        value: Its value.
        low: The lower end of its 95 % interval; nan with one example.
        high: The upper end.
        examples: How many examples there are.
    """

    metric: Metric
    value: float
    low: float
    high: float
    examples: int


def of_run(
    values: Mapping[str, float], examples: Mapping[str, Sequence[float]], level: float = 0.95
) -> list[RunInterval]:
    """The metrics of one run, each with its interval.

    Args:
        values: The run's `metrics`.
        examples: The run's scores by example.
        level: Share of intervals that shall hold the metric.

    Returns:
        The metrics of `values` that follow from the scores of `examples`, in their order.
    """
    found = []
    for name, value in values.items():
        metric = METRICS.get(name)
        if metric and {*metric.scores, metrics.WEIGHT} <= set(examples):
            found.append(_interval(metric, value, examples, level))
    return found


def _interval(
    metric: Metric, value: float, examples: Mapping[str, Sequence[float]], level: float
) -> RunInterval:
    columns = {
        name: np.asarray(examples[name], float)[None] for name in (*metric.scores, metrics.WEIGHT)
    }
    scores = metrics.by_example(metric, columns)[0]
    count = len(scores)
    if count < 2:
        return RunInterval(metric, value, math.nan, math.nan, count)
    if is_binary(scores[None]):  # Wilson 1927: the interval stays within 0 and 1
        ends = scipy.stats.binomtest(int(scores.sum()), count).proportion_ci(level, method="wilson")
        return RunInterval(metric, value, float(ends.low), float(ends.high), count)
    error = scores.std(ddof=1) / math.sqrt(count)
    reach = scipy.stats.t.isf((1 - level) / 2, count - 1) * error
    low, high = (metrics.shown(metric, scores.mean() + sign * reach) for sign in (-1, 1))
    if not metric.is_log:
        low, high = max(low, metric.lowest), min(high, metric.highest)
    return RunInterval(metric, value, float(low), float(high), count)
