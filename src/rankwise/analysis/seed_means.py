"""The mean over seeds of a number that each run reports, as the table of estimates has it.

It is not in `metrics.py` because training imports that: an edit here reruns no training.
"""

import numpy as np
import pandas as pd

from rankwise.analysis.metrics import SMALLEST
from rankwise.core.metrics import METRICS


def mean_over_seeds(values: pd.Series, column: str) -> float:
    """The mean of a column of the table of runs over some of its rows.

    That of a metric of the kind LOGARITHM, such as perplexity, is the geometric mean: its estimate
    is exp of a mean of logarithms over seeds and examples.

    Args:
        values: A number for each run; missing ones are left out.
        column: Name of the column. One that is no metric has the plain mean.
    """
    metric = METRICS.get(column)
    if metric is None or not metric.is_log:
        return float(values.mean())
    return float(np.exp(np.log(values.clip(lower=SMALLEST)).mean()))
