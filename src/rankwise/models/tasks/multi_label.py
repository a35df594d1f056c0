"""Several labels a text: for each class, whether the text has it; loss in nats a class.

A class is predicted where its logit is above 0, which is a probability above 1/2.
"""

import torch
from torch import Tensor, nn

from rankwise.models.tasks import classification, regression

AUTO_CLASS = "AutoModelForSequenceClassification"
LABELS = "classes"
METRICS = ("micro_f1_fraction", "exact_match_fraction")
NEW_HEAD = True

encode = classification.encode  # the label is a list of 0 and 1 here, one for each class
predictions = classification.predictions  # the loss is a mean over classes first, then examples
Collate = regression.Collate  # labels are float32, here (examples, classes)


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Loss, counts of classes, and whether all classes of a text are right.

    Args:
        model: with a head of one output a class.
        batch: from `Collate`: ids and mask (examples, tokens), labels (examples, classes).

    Returns:
        `loss_nats`, a mean over classes; `right`, `named` and `labelled`, numbers of classes;
        `exact_match_fraction`, 0 or 1; and `predictions`, which is 1; of each example.
    """
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits, labels = output.logits.float(), batch["labels"]  # each (examples, classes)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    is_named, is_labelled = logits > 0, labels > 0
    return {
        "loss_nats": loss.mean(1),
        "right": (is_named & is_labelled).sum(1),
        "named": is_named.sum(1),
        "labelled": is_labelled.sum(1),
        "exact_match_fraction": (is_named == is_labelled).all(1).float(),
        "predictions": torch.ones_like(labels[:, 0]),
    }
