"""Metrics are means over predictions."""

import math

import pytest

from rankwise.training import evaluation


def test_examples_are_weighted_by_their_predictions() -> None:
    scores = {"loss_nats": [1.0, 3.0], "correct_fraction": [1.0, 0.0], "predictions": [3, 1]}
    assert evaluation.metrics(scores) == {"eval_loss_nats": 1.5, "accuracy_fraction": 0.75}


@pytest.mark.parametrize(("loss", "perplexity"), [(math.log(2), 2.0), (800.0, math.inf)])
def test_a_task_without_right_answers_has_a_perplexity(loss: float, perplexity: float) -> None:
    """exp(800) overflows a float; it is infinite, and no error."""
    metrics = evaluation.metrics({"loss_nats": [loss], "predictions": [1]})
    assert metrics["perplexity"] == pytest.approx(perplexity)
    assert set(metrics) == {"eval_loss_nats", "perplexity"}


def test_an_example_without_predictions_does_not_count() -> None:
    scores = {"loss_nats": [0.0, 2.0], "correct_fraction": [0.0, 1.0], "predictions": [0, 2]}
    assert evaluation.metrics(scores) == {"eval_loss_nats": 2.0, "accuracy_fraction": 1.0}
