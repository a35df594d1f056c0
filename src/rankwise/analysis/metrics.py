"""Metrics as functions of the scores of examples, and what each example adds to them.

A training run and the tables call the same functions. Intervals and comparisons need scores of
single examples whose mean is the metric (variance.py). Accuracies and losses are such means. For
every other metric they are the pseudo-values of the jackknife (Tukey 1958),

    value + (E - 1) (mean of all values without one example - value without this one)

Their mean is the metric, and the variance of their mean is the jackknife's. So one function is all
that a metric needs, and seeds and examples stay crossed, as they are for accuracies. A bootstrap
would have to draw runs and examples anew for each metric, and with three seeds it is too narrow
(variance.py).

Where we differ: textbooks leave the values uncentred, so that their mean is a bias-corrected
metric. A table that shows a metric should show what `sklearn` shows, so ours are centred.

The jackknife needs a metric that changes little without one example. Macro F1 is not such a metric
where a class has very few examples.
"""

import math
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike, NDArray

from rankwise.analysis import own_metrics
from rankwise.core.metrics import METRICS, WEIGHT, Metric

# exp of a larger number overflows a Python float, so such a metric is reported as infinite.
LARGEST_EXPONENT = math.log(sys.float_info.max)
SMALLEST = sys.float_info.min  # stands for an error of 0, which has no logarithm
NUMBERS_AT_ONCE = 2_000_000  # of scores without one example; bounds memory


# Functions of examples along the last axis ----------------------------------------------------


def macro_f1(label: NDArray, predicted: NDArray) -> NDArray:
    """The mean over classes of 2 right / (labelled + predicted).

    Classes that are neither labelled nor predicted are left out, as in scikit-learn.

    Args:
        label: Classes, (..., E).
        predicted: Classes, (..., E).
    """
    total, count = np.zeros(label.shape[:-1]), np.zeros(label.shape[:-1])
    for number in np.union1d(label, predicted):
        is_label, is_predicted = label == number, predicted == number
        right = (is_label & is_predicted).sum(-1)
        sizes = is_label.sum(-1) + is_predicted.sum(-1)
        total += 2 * right / np.maximum(sizes, 1)
        count += sizes > 0
    return total / np.maximum(count, 1)


def matthews(label: NDArray, predicted: NDArray) -> NDArray:
    """Matthews's correlation of classes; 0 where all labels or all predictions are one class.

    Args:
        label: Classes, (..., E).
        predicted: Classes, (..., E).

    References:
        Matthews 1975; for more than two classes Gorodkin 2004, R_K.
    """
    examples = float(label.shape[-1])
    right = (label == predicted).sum(-1).astype(float)
    both, labelled, named = (np.zeros(label.shape[:-1]) for _ in range(3))
    for number in np.union1d(label, predicted):
        of_label, of_predicted = (label == number).sum(-1), (predicted == number).sum(-1)
        both += of_label * of_predicted
        labelled += of_label**2
        named += of_predicted**2
    spread = (examples**2 - labelled) * (examples**2 - named)
    covariance = right * examples - both
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 0)


def pearson(label: NDArray, predicted: NDArray) -> NDArray:
    """Pearson's correlation; 0 where all labels or all predictions are equal.

    Args:
        label: Numbers, (..., E).
        predicted: Numbers, (..., E).
    """
    x, y = (values - values.mean(-1, keepdims=True) for values in (label, predicted))
    spread = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    is_constant = (np.ptp(label, -1) == 0) | (np.ptp(predicted, -1) == 0)
    usable = ~is_constant & (spread > 0)
    value = np.divide((x * y).sum(-1), spread, out=np.zeros_like(spread), where=usable)
    return np.clip(value, -1, 1)


def spearman(label: NDArray, predicted: NDArray) -> NDArray:
    """Pearson's correlation of the ranks; equal numbers share their mean rank.

    Args:
        label: Numbers, (..., E).
        predicted: Numbers, (..., E).

    References:
        Spearman 1904.
    """
    return pearson(scipy.stats.rankdata(label, axis=-1), scipy.stats.rankdata(predicted, axis=-1))


def log_mean_squared_error(label: NDArray, predicted: NDArray) -> NDArray:
    """The logarithm of the mean of (predicted - label)^2, in squared units of the label."""
    return np.log(np.maximum(((predicted - label) ** 2).mean(-1), SMALLEST))


def f1_of_counts(right: NDArray, named: NDArray, labelled: NDArray) -> NDArray:
    """2 right / (named + labelled) of counts that are added over examples; 0 without any.

    Args:
        right: How many of an example's things were named rightly, (..., E).
        named: How many were named, (..., E).
        labelled: How many there are, (..., E).
    """
    total = (named.sum(-1) + labelled.sum(-1)).astype(float)
    return np.divide(2.0 * right.sum(-1), total, out=np.zeros_like(total), where=total > 0)


def log_word_perplexity(loss: NDArray, predictions: NDArray, words: NDArray) -> NDArray:
    """Nats a word: the losses of all predicted tokens, over the words that these tokens end.

    Args:
        loss: Mean loss over an example's predictions in nats, (..., E).
        predictions: Their number, (..., E).
        words: How many words they end, (..., E).
    """
    return (loss * predictions).sum(-1) / np.maximum(words.sum(-1), 1)


def bits_per_byte(loss: NDArray, predictions: NDArray, bytes_: NDArray) -> NDArray:
    """The losses of all predicted tokens in bits, over the bytes that these tokens end.

    Args:
        loss: Mean loss over an example's predictions in nats, (..., E).
        predictions: Their number, (..., E).
        bytes_: How many bytes of UTF-8 they end, (..., E).

    References:
        Gao et al. 2020, arXiv 2101.00027, section 3.1.
    """
    return (loss * predictions).sum(-1) / np.maximum(bytes_.sum(-1), 1) / math.log(2)


# Metric -> a function of its scores, each (..., E). It returns (...), for a metric of the kind
# LOGARITHM the logarithm. A metric that is not here is a mean over predictions of its one score.
FUNCTIONS = {
    "macro_f1_fraction": macro_f1,
    "matthews_correlation": matthews,
    "pearson_correlation": pearson,
    "spearman_correlation": spearman,
    "mean_squared_error": log_mean_squared_error,
    "micro_f1_fraction": f1_of_counts,
    "span_f1_fraction": f1_of_counts,
    "word_perplexity": log_word_perplexity,
    "bits_per_byte": bits_per_byte,
}


def _function(metric: Metric) -> Callable[..., NDArray] | None:
    """The function of a metric; None for a mean over predictions of its one score."""
    return own_metrics.function(metric) if metric.is_own else FUNCTIONS.get(metric.name)


# Values -------------------------------------------------------------------------------------------


def value(metric: Metric, scores: dict[str, Sequence[float]]) -> float:
    """A metric of the examples of one run.

    Args:
        metric: One of METRICS.
        scores: Column -> a number for each example.
    """
    function = _function(metric)
    if function is None:
        found = weighted_mean(scores[metric.scores[0]], scores[WEIGHT])
    else:
        own_metrics.check_scores(metric, scores)
        columns = [np.asarray(scores[name], float) for name in metric.scores]
        found = float(function(*columns))
    if not metric.is_log:
        return found
    return math.exp(found) if found < LARGEST_EXPONENT else math.inf


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean of some values by weight; 0 where all weights are 0."""
    # fsum rounds once, so the mean does not depend on the order of the examples.
    total = math.fsum(value * weight for value, weight in zip(values, weights, strict=True))
    return total / max(sum(weights), 1)


def shown(metric: Metric, mean: ArrayLike) -> float:
    """The metric that a mean of `by_example` stands for."""
    return float(np.exp(mean)) if metric.is_log else float(mean)


def by_example(metric: Metric, columns: dict[str, NDArray]) -> NDArray:
    """Scores (S, E) of several runs whose plain mean over examples is each run's metric.

    For a metric of the kind LOGARITHM it is the metric's logarithm.

    Args:
        metric: One of METRICS.
        columns: Column -> scores (S, E), with those that the metric needs and `predictions`.
    """
    function = _function(metric)
    if function is None:
        return linearised_by_seed(columns[metric.scores[0]], columns[WEIGHT])
    scores = [columns[name] for name in metric.scores]
    runs = [
        pseudo_values(function, [score[run] for score in scores]) for run in range(len(scores[0]))
    ]
    return np.stack(runs)


def pseudo_values(function: Callable[..., NDArray], columns: list[NDArray]) -> NDArray:
    """The centred pseudo-values (E,) of one run, see the top of this module.

    Examples with the same scores have the same value, which is computed once.

    Args:
        function: Of arrays (..., E).
        columns: What it takes, each (E,).
    """
    examples = len(columns[0])
    whole = float(function(*columns))
    if examples == 1:
        return np.array([whole])
    rows, first, kind = np.unique(
        np.column_stack(columns), axis=0, return_index=True, return_inverse=True
    )
    without_kind = np.empty(len(rows))
    step = max(1, NUMBERS_AT_ONCE // examples)
    for start in range(0, len(rows), step):
        left_out = first[start : start + step]
        kept = np.arange(examples - 1) + (np.arange(examples - 1) >= left_out[:, None])
        without_kind[start : start + step] = function(*(column[kept] for column in columns))
    without = without_kind[kind.ravel()]
    return whole + (examples - 1) * (without.mean() - without)


def linearised_by_seed(
    scores: NDArray,  # (S, E)
    weights: NDArray,  # (S, E)
) -> NDArray:
    """Scores whose plain mean over examples is each seed's weighted mean.

    As `variance.linearised`, but each seed may weigh the examples differently, as random masks do.
    """
    if (weights == weights[0, 0]).all():
        return scores  # keeps 0 and 1 exact: accuracies get another interval
    relative = weights / weights.mean(1, keepdims=True)
    weighted_mean_ = (scores * relative).mean()
    return weighted_mean_ + relative * (scores - weighted_mean_)


# Which metric -------------------------------------------------------------------------------------


def of_runs(runs: pd.DataFrame) -> Metric:
    """The metric by which the runs of a model and dataset are compared.

    Args:
        runs: Rows of the table of runs. Its column `metric` names the metric; a table that was made
            before there was such a column has accuracies, or else perplexities.
    """
    named = runs["metric"].dropna() if "metric" in runs else []
    if len(named):
        return METRICS[named.iloc[0]]
    has_accuracy = "accuracy_fraction" in runs and runs["accuracy_fraction"].notna().any()
    return METRICS["accuracy_fraction" if has_accuracy else "perplexity"]
