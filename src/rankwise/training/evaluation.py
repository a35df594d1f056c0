"""Evaluate a model on a dataset split: scores for each example, and their means as metrics."""

import math
import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import DataLoader

from rankwise.core import progress
from rankwise.data.prepared import Data

Scores = dict[str, list[float]]

# exp of a larger loss overflows a Python float, so its perplexity is reported as infinite.
LARGEST_EXPONENT = math.log(sys.float_info.max)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    examples: list[dict],
    batch_size: int,
    device: torch.device,
    before_batch: Callable[[], None] | None = None,
) -> Scores:
    """Score each of `examples`, in order, and leave the model in training mode.

    Every evaluation makes the same random draws and takes none from the generators that training
    uses. How often a run evaluates therefore does not change what it learns.

    Args:
        model: Evaluated on `device`.
        data: Gives the task and the tokenizer.
        examples: Encoded examples of one split.
        batch_size: Examples per batch.
        device: Where the batches go.
        before_batch: Called before each batch; it may raise to stop the evaluation.

    Returns:
        Lists with one entry per example: `loss_nats`, the mean loss over its predictions;
        `correct_fraction`, if the task has right answers; `predictions`, how many there are.
    """
    # A DataLoader draws a seed from the global generator unless it has a generator of its own.
    own_generator = torch.Generator()
    collate = type(data.collate)(data.tokenizer, seed=0)
    loader = DataLoader(examples, batch_size, collate_fn=collate, generator=own_generator)
    scores: Scores = {}
    model.eval()
    steps = progress.Steps("batch", "batches", len(loader), is_part=True)
    for number, batch in enumerate(loader):
        steps.made(number)
        if before_batch is not None:
            before_batch()
        on_device = {name: value.to(device) for name, value in batch.items()}
        for name, values in data.task.scores(model, on_device).items():
            rounded = [_seven_digits(value) for value in values.tolist()]
            scores.setdefault(name, []).extend(rounded)
    model.train()
    return scores


def metrics(scores: Scores) -> dict[str, float]:
    """Average the scores of a split over its predictions.

    Returns:
        `eval_loss_nats`, and `accuracy_fraction`, or `perplexity` if the task has no right answers.
    """
    weights = scores["predictions"]
    loss = _weighted_mean(scores["loss_nats"], weights)
    if "correct_fraction" in scores:
        accuracy = _weighted_mean(scores["correct_fraction"], weights)
        return {"eval_loss_nats": loss, "accuracy_fraction": accuracy}
    perplexity = math.exp(loss) if loss < LARGEST_EXPONENT else math.inf
    return {"eval_loss_nats": loss, "perplexity": perplexity}


def _seven_digits(value: float) -> float:
    """Round to seven significant digits, which is all that float32 holds; results stay small."""
    return float(f"{value:.7g}")


def _weighted_mean(values: list[float], weights: list[int]) -> float:
    # fsum rounds once, so the mean does not depend on the order of the examples.
    total = math.fsum(value * weight for value, weight in zip(values, weights, strict=True))
    return total / max(sum(weights), 1)
