"""Grades between 0 and 1: a regression whose predictions are cut to that range.

Put this file into the folder `tasks` of your own project, beside the studies.
"""

import torch
from torch import Tensor, nn

from rankwise.models.tasks.regression import Collate, encode, predictions  # noqa: F401

AUTO_CLASS = "AutoModelForSequenceClassification"  # of transformers: builds the model
LABELS = "number"  # how the column of labels is read: class, number, classes, tags or none
METRICS = ("pearson_correlation", "mean_squared_error")  # the first compares the runs
NEW_HEAD = True  # the head is new for the data, so it trains under every method


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the loss and the metrics need of each example; every value is (examples,)."""
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    grades = output.logits.float().squeeze(-1)
    return {
        "loss_nats": (grades - batch["labels"]) ** 2,
        "label": batch["labels"],
        "predicted": grades.clamp(0, 1),
        "predictions": torch.ones_like(grades),
    }
