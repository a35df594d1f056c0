"""Sequence classification: one label a text; loss in nats, and whether the prediction is right."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.build import pad_token_id
from rankwise.models.padding import padded_texts

AUTO_CLASS = "AutoModelForSequenceClassification"
LABELS = "class"
METRICS = ("accuracy_fraction", "macro_f1_fraction", "matthews_correlation")
NEW_HEAD = True


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Examples with the token ids and the label of each row.

    Args:
        rows: with `text` and `label`.
        tokenizer: of the model.
        dataset: its entry; texts are cut to its `max_length_tokens`.

    Returns:
        `{"input_ids": [...], "labels": an integer}` for each row, in their order.
    """
    if not rows:
        return []  # the tokenizer refuses an empty list
    texts = [row["text"] for row in rows]
    length = dataset["max_length_tokens"]
    ids_by_row = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    pairs = zip(ids_by_row, rows, strict=True)
    return [{"input_ids": ids, "labels": row["label"]} for ids, row in pairs]


class Collate:
    """Makes a batch of examples, padded to the longest.

    Args:
        tokenizer: of the model; gives the padding token.
        seed: not used: nothing is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = pad_token_id(tokenizer)

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        labels = torch.tensor([example["labels"] for example in batch])
        return {**padded_texts(batch, self.pad), "labels": labels}


def predictions(batch: dict[str, Tensor]) -> int:
    """How many predictions the mean loss of a batch averages over: one an example."""
    return len(batch["labels"])


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Loss, label and predicted class; the number of predictions is 1.

    Args:
        model: with a classification head.
        batch: from `Collate`: ids and mask (examples, tokens), labels (examples,).

    Returns:
        `loss_nats`, `correct_fraction`, `label`, `predicted` and `predictions`, of each example.
    """
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits, labels = output.logits.float(), batch["labels"]  # (examples, classes), (examples,)
    predicted = logits.argmax(-1)
    return {
        "loss_nats": nn.functional.cross_entropy(logits, labels, reduction="none"),
        "correct_fraction": (predicted == labels).float(),
        "label": labels,
        "predicted": predicted,
        "predictions": torch.ones_like(labels),
    }
