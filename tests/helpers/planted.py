"""Results of runs with planted scores, as training would have written them, and the tables made of
them.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from rankwise.analysis import tidy
from rankwise.core import provenance, result

MARGINS = {"accuracy_fraction": 0.01, "perplexity_ratio": 1.02}
# A curve's scores by random seed; a seed, or all of them, may have a status in place of scores.
Scores = dict[tuple[str, int], list | str]


def request(
    method: str, rank: int, seed: int, dataset: str = "d", device: str | None = None
) -> dict:
    """What a run was asked for, as far as tables look at it."""
    asked = {
        "cell": {"model": "m", "dataset": dataset, "method": method, "rank": rank, "seed": seed},
        "method": {"learning_rate": 0.1, "options": {}, "optimizer": {}},
        "schedule": {"batch_size": 8, "accumulation_steps": 4, "epochs": 3},
    }
    return {**asked, "device": device} if device else asked


def write(folder: Path, asked: dict, **found: object) -> Path:
    """Write a result that answers a request, in a folder named by the request's digest."""
    path = folder / provenance.digest(asked) / "train.json"
    result.write(path, asked, found, {})
    return path


def study(
    folder: Path,
    curves: Scores,
    dataset: str = "d",
    weights: list | None = None,
    device: str = "cpu",
) -> list[Path]:
    """Write the results of a study's runs.

    Args:
        folder: Where the files go.
        curves: (method, rank) -> scores of each seed's examples: 0 and 1 make accuracies, other
            numbers losses.
        dataset: Of all runs.
        weights: What each example counts, for each seed; the scores are shares of right predictions
            then.
        device: Of all runs.
    """
    planned = []
    for (method, rank), by_seed in curves.items():
        for seed, scores in enumerate([by_seed] * 2 if isinstance(by_seed, str) else by_seed):
            path = folder / f"{dataset}-{method}-{rank}-{seed}"
            asked = request(method, rank, seed, dataset, device)
            if isinstance(scores, str):
                planned.append(write(path, asked, status=scores, reason="as planted"))
            else:
                weight = weights[seed] if weights else None
                planned.append(write(path, asked, **_run(scores, weight, rank, seed)))
    return planned


def _run(scores: list, weights: list | None, rank: int, seed: int) -> dict:
    """A result whose metric is the weighted mean of its scores."""
    values = np.asarray(scores, float)
    share = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    mean = float((values * share).sum() / share.sum())
    if weights is not None or set(values) <= {0.0, 1.0}:
        metric, score = {"accuracy_fraction": mean}, "correct_fraction"
    else:
        metric, score = {"perplexity": math.exp(mean)}, "loss_nats"
    counts = {
        "updates": 10,
        "samples": 80,
        "tokens": 800 + seed,
        "trainable_parameters": 100 + rank,
    }
    return {
        "metrics": {**metric, **counts},
        "examples": {score: values.tolist(), "predictions": share.tolist()},
        "cost": {"step_time_s": 0.1 + rank},
    }


def tables_of(planned: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of runs and of examples."""
    return tidy.collect(planned), tidy.examples(planned)
