"""Evaluate a model on a dataset split: scores for each example, and their means as metrics."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader

from rankwise.analysis.metrics import LARGEST_EXPONENT, value, weighted_mean
from rankwise.core import progress
from rankwise.core.metrics import LOSS, METRICS, WEIGHT
from rankwise.data.prepared import Data
from rankwise.training.group import Group

Scores = dict[str, list[float]]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    examples: list[dict],
    batch_size: int,
    device: torch.device,
    before_batch: Callable[[], None] | None = None,
    group: Group | None = None,
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
        before_batch: Called before each batch; it may raise to stop the evaluation. Where several
            processes share the batches, before the first batch of each round.
        group: The processes that share the batches, round by round; None if this one evaluates
            all. The batches are the same ones, and each process makes the random draws of all.

    Returns:
        Lists with one entry per example: `loss_nats`, the mean loss over its predictions;
        `predictions`, how many there are; and what the task's metrics need.
    """
    # A DataLoader draws a seed from the global generator unless it has a generator of its own.
    own_generator = torch.Generator()
    collate = type(data.collate)(data.tokenizer, seed=0)
    loader = DataLoader(examples, batch_size, collate_fn=collate, generator=own_generator)
    processes, own_turn = (group.count, group.index) if group else (1, 0)
    parts: dict[int, Scores] = {}
    model.eval()
    steps = progress.Steps("batch", "batches", len(loader), is_part=True)
    for number, batch in enumerate(loader):
        turn = number % processes
        if turn == 0:
            steps.made(number)
            if before_batch is not None:
                before_batch()
        if turn == own_turn:
            on_device = {name: value.to(device) for name, value in batch.items()}
            parts[number] = {}
            for name, values in data.task.scores(model, on_device).items():
                parts[number][name] = [_seven_digits(value) for value in values.tolist()]
    model.train()
    return _in_order(group.gathered(parts) if group else [parts])


def _in_order(parts_of_processes: list[dict[int, Scores]]) -> Scores:
    """The scores of all batches, in the order of the examples.

    Args:
        parts_of_processes: For each process, the number of a batch -> its scores.
    """
    by_batch: dict[int, Scores] = {}
    for parts in parts_of_processes:
        by_batch |= parts
    scores: Scores = {}
    for number in sorted(by_batch):
        for name, values in by_batch[number].items():
            scores.setdefault(name, []).extend(values)
    return scores


def metrics(scores: Scores, names: Sequence[str]) -> dict[str, float]:
    """The loss and the metrics of a split.

    Args:
        scores: From `evaluate`.
        names: The task's metrics.

    Returns:
        `eval_loss_nats`, a mean over predictions, and each metric. One that no float holds is left
        out where the loss itself is small: the word perplexity of text without white space.
    """
    loss = weighted_mean(scores[LOSS], scores[WEIGHT])
    found = {name: value(METRICS[name], scores) for name in names}
    if loss < LARGEST_EXPONENT:
        found = {name: metric for name, metric in found.items() if metric != math.inf}
    return {"eval_loss_nats": loss, **found}


def left_out(found: dict[str, float], names: Sequence[str]) -> dict[str, str]:
    """What a result says of metrics that no float holds.

    Args:
        found: From `metrics`.
        names: The task's metrics.

    Returns:
        `left_out` with a sentence; nothing if no metric is left out.
    """
    missing = [name for name in names if name not in found]
    if not missing:
        return {}
    verb = "is" if len(missing) == 1 else "are"
    return {
        "left_out": f"{', '.join(missing)} {verb} left out: no float holds a number so large; the "
        "text has hardly any white space, so that one word has very many tokens"
    }


def _seven_digits(value: float) -> float:
    """Round to seven significant digits, which is all that float32 holds; results stay small."""
    return float(f"{value:.7g}")
