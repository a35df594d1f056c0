"""A model on a split: a score for each example, and the task's metrics as their means."""

import math
import sys
from collections.abc import Iterable
from types import ModuleType

import torch
from torch import Tensor, nn

Scores = dict[str, list[float]]
LARGEST = math.log(sys.float_info.max)


@torch.no_grad()
def evaluate(task: ModuleType, model: nn.Module, batches: Iterable[dict[str, Tensor]]) -> Scores:
    """An entry for each example, in order: loss_nats, correct_fraction where the task has it, predictions.

    A loss is the mean over the example's predictions, to seven digits, which is what float32 holds.
    """
    found = [task.scores(model, batch) for batch in batches]
    return {
        name: [_kept(value) for scores in found for value in scores[name].tolist()]
        for name in found[0]
    }


def metrics(scores: Scores) -> dict[str, float]:
    """Means over predictions: eval_loss_nats, and accuracy_fraction, or perplexity where nothing is right or wrong."""
    weights = scores["predictions"]
    loss = _mean(scores["loss_nats"], weights)
    other = (
        {"accuracy_fraction": _mean(scores["correct_fraction"], weights)}
        if "correct_fraction" in scores
        else {}
    )
    return {
        "eval_loss_nats": loss,
        **(other or {"perplexity": math.exp(loss) if loss < LARGEST else math.inf}),
    }


def _kept(value: float) -> float:
    return float(f"{value:.7g}")


def _mean(values: list[float], weights: list[int]) -> float:
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / max(sum(weights), 1)
