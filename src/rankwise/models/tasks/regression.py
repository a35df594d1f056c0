"""Regression: one number a text, predicted by a head with one output and the mean squared error.

The loss is in nats: a squared error is the negative log-likelihood, less a constant, of a normal
distribution with variance 1/2 around the prediction. Numbers are learnt as the data have them, so
a scale with large numbers needs a larger learning rate or scaled labels.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.tasks import classification

AUTO_CLASS = "AutoModelForSequenceClassification"
LABELS = "number"
METRICS = ("spearman_correlation", "pearson_correlation", "mean_squared_error")
NEW_HEAD = True

encode = classification.encode  # the label is a number here
predictions = classification.predictions


class Collate:
    """Makes a batch of examples, padded to the longest; labels are float32.

    Args:
        tokenizer: of the model; gives the padding token.
        seed: not used: nothing is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = classification.Collate(tokenizer, seed)

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        padded = self.pad(batch)
        return {**padded, "labels": padded["labels"].float()}


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Squared error, label and prediction; the number of predictions is 1.

    Args:
        model: with a head of one output.
        batch: from `Collate`: ids and mask (examples, tokens), labels (examples,).

    Returns:
        `loss_nats`, `label`, `predicted` and `predictions`, of each example.
    """
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    predicted, labels = output.logits.float().squeeze(-1), batch["labels"]  # each (examples,)
    return {
        "loss_nats": (predicted - labels) ** 2,
        "label": labels,
        "predicted": predicted,
        "predictions": torch.ones_like(labels),
    }
