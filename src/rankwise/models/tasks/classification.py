"""Sequence classification: one label a text; loss in nats, correct or not."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.build import pad_token_id


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Token ids, cut to the dataset's `max_length_tokens`, and the label of each row."""
    texts = [row["text"] for row in rows]
    ids = (
        tokenizer(texts, truncation=True, max_length=dataset["max_length_tokens"])["input_ids"]
        if texts
        else []
    )
    return [{"input_ids": i, "labels": row["label"]} for i, row in zip(ids, rows, strict=True)]


class Collate:
    """Pads a batch to its longest example."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = pad_token_id(tokenizer)

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        longest = max(len(example["input_ids"]) for example in batch)
        ids = torch.full((len(batch), longest), self.pad)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(batch):
            length = len(example["input_ids"])
            ids[row, :length] = torch.tensor(example["input_ids"])
            mask[row, :length] = 1
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": torch.tensor([e["labels"] for e in batch]),
        }


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Loss, whether the label is right, and one prediction an example."""
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).logits.float()
    loss = nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
    right = logits.argmax(-1) == batch["labels"]
    return {
        "loss_nats": loss,
        "correct_fraction": right.float(),
        "predictions": torch.ones_like(batch["labels"]),
    }
