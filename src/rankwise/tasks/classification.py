"""Sequence classification: one label a text; loss in nats an example, accuracy as a fraction."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models import pad_token_id


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Token ids, cut to the dataset's `max_length_tokens`, and the label of each row."""
    texts = [row["text"] for row in rows]
    ids = tokenizer(texts, truncation=True, max_length=dataset["max_length_tokens"])["input_ids"] if texts else []
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
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([e["labels"] for e in batch])}


@torch.no_grad()
def evaluate(model: nn.Module, batches: list[dict[str, Tensor]]) -> dict[str, float]:
    """Mean over examples, not over batches."""
    loss = correct = count = 0.0
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
        loss += nn.functional.cross_entropy(logits, batch["labels"], reduction="sum").item()
        correct += (logits.argmax(-1) == batch["labels"]).sum().item()
        count += len(batch["labels"])
    return {"eval_loss_nats": loss / count, "accuracy_fraction": correct / count}
