"""Metrics are means over predictions."""

import math

import pytest
import torch

from helpers import windows
from rankwise.data.prepared import Data
from rankwise.training import evaluation


def test_examples_are_weighted_by_their_predictions() -> None:
    scores = {"loss_nats": [1.0, 3.0], "correct_fraction": [1.0, 0.0], "predictions": [3, 1]}
    assert evaluation.metrics(scores, ("accuracy_fraction",)) == {
        "eval_loss_nats": 1.5,
        "accuracy_fraction": 0.75,
    }


@pytest.mark.parametrize(("loss", "perplexity"), [(math.log(2), 2.0), (800.0, math.inf)])
def test_a_task_without_right_answers_has_a_perplexity(loss: float, perplexity: float) -> None:
    """exp(800) overflows a float; it is infinite, and no error."""
    metrics = evaluation.metrics({"loss_nats": [loss], "predictions": [1]}, ("perplexity",))
    assert metrics["perplexity"] == pytest.approx(perplexity)
    assert set(metrics) == {"eval_loss_nats", "perplexity"}


def test_an_example_without_predictions_does_not_count() -> None:
    scores = {"loss_nats": [0.0, 2.0], "correct_fraction": [0.0, 1.0], "predictions": [0, 2]}
    assert evaluation.metrics(scores, ("accuracy_fraction",)) == {
        "eval_loss_nats": 2.0,
        "accuracy_fraction": 1.0,
    }


@pytest.mark.parametrize("task", windows.TASKS)
def test_scores_do_not_depend_on_the_batch_size(task: str) -> None:
    """The masks of masked language modelling are drawn for each text, whatever it is padded to."""
    model, examples = windows.model(task), windows.scored_examples(task)
    module = windows.TASKS[task]
    collate = module.Collate(windows.tokenizer(), 0)
    data = Data(module, windows.tokenizer(), collate, [], examples, [])
    runs = []
    for size in (1, 5, 64):
        runs.append(evaluation.evaluate(model, data, examples, size, torch.device("cpu")))
    for name, values in runs[0].items():
        assert len(values) == windows.EXAMPLES
        for other in runs[1:]:
            assert other[name] == pytest.approx(values, rel=1e-6)


def test_masking_follows_the_published_fractions() -> None:
    """15 % of the tokens are predicted: 80 % of these are masked, 10 % are random, 10 % stay."""
    tokenizer = windows.tokenizer()
    words = [token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids]
    ids = (words * 400)[:4000]
    module = windows.TASKS["masked_language_modelling"]
    batch = module.Collate(tokenizer, 0)([{"input_ids": ids, "labels": 0}] * 10)
    is_predicted = batch["labels"] != -100
    assert is_predicted.double().mean().item() == pytest.approx(0.15, abs=0.01)
    original = torch.tensor(ids).expand(10, -1)
    assert torch.equal(batch["labels"][is_predicted], original[is_predicted])
    assert torch.equal(batch["input_ids"][~is_predicted], original[~is_predicted])
    shown = batch["input_ids"][is_predicted]
    assert (shown == tokenizer.mask_token_id).double().mean().item() == pytest.approx(0.8, abs=0.03)
    stayed = (shown == original[is_predicted]).double().mean().item()
    # A random token is the original one with probability 1 / vocabulary.
    assert stayed == pytest.approx(0.1 + 0.1 / len(tokenizer), abs=0.02)
    assert not torch.equal(is_predicted[0], is_predicted[1])  # each text is masked anew
