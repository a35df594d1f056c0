"""How many updates a run makes, when it evaluates, and what it accumulates."""

import math

import pytest
import torch
from torch import nn

from rankwise.training.divergence import Diverged
from rankwise.training.progress import Sums, TrainingState, UpdatePlan
from rankwise.training.updates import Made


@pytest.mark.parametrize(("schedule", "expected"), [
    # 7 micro-batches with 2 per update: the last update of an epoch has one micro-batch
    ({"updates": None, "epochs": 3, "evaluate_every_updates": None}, (4, 12, 4)),
    ({"updates": 10, "epochs": None, "evaluate_every_updates": None}, (4, 10, 4)),
    ({"updates": 3, "epochs": None, "evaluate_every_updates": None}, (4, 3, 3)),
    ({"updates": 10, "epochs": None, "evaluate_every_updates": 6}, (4, 10, 6)),
])  # fmt: skip
def test_the_plan_of_a_schedule(schedule: dict, expected: tuple[int, int, int]) -> None:
    assert UpdatePlan.from_schedule({**schedule, "accumulation_steps": 2}, 7) == expected


def test_a_run_evaluates_first_last_and_at_its_interval() -> None:
    plan = UpdatePlan(per_epoch=4, total=10, evaluate_every=6)
    assert [update for update in range(11) if plan.evaluates_after(update)] == [0, 6, 10]


def test_means_are_per_prediction_and_per_update() -> None:
    """Two updates: 3 predictions of 2 nats, and 1 of 6 nats."""
    sums = Sums()
    for loss, predictions, norm in ((6.0, 3, 1.0), (6.0, 1, 2.0)):
        sums.add(Made(torch.tensor(loss), torch.tensor(norm), predictions, samples=1, tokens=1))
    assert sums.means(2) == {"train_loss_nats": 3.0, "gradient_norm": 1.5}


def test_updates_without_predictions_have_no_mean_loss() -> None:
    assert Sums(updates=1, gradient_norm=0.0).means(1) == {"gradient_norm": 0.0}


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_means_that_are_not_finite_end_a_run(bad: float) -> None:
    with pytest.raises(Diverged, match=r"update 2: training: train_loss_nats (inf|nan)"):
        Sums(loss=bad, predictions=1).means(2)
    with pytest.raises(Diverged, match="gradient_norm"):
        Sums(gradient_norm=bad, updates=1).means(2)


def test_the_best_trainable_parameters_are_kept_and_restored() -> None:
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    state = TrainingState()
    for loss, weight in ((2.0, 20.0), (1.0, 10.0), (1.5, 15.0)):
        nn.init.constant_(model.weight, weight)
        state.keep_if_best(model, loss)
    nn.init.constant_(model.bias, 7.0)
    state.restore_best(model)
    assert (model.weight.item(), model.bias.item()) == (10.0, 7.0)


def test_a_model_without_a_best_state_keeps_its_last() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 3.0)
    TrainingState().restore_best(model)
    assert model.weight.item() == 3.0
