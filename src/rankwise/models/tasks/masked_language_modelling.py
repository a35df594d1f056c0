"""Masked language modelling (Devlin et al. 2019): 15 % of the tokens are predicted; of these 80 % are masked, 10 % random."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.tasks import classification

PREDICTED, MASKED, RANDOM = 0.15, 0.8, 0.1
IGNORED = -100


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Token ids of each text, without the tokens that mark a text to classify."""
    texts, length = [row["text"] for row in rows], dataset["max_length_tokens"]
    ids = (
        tokenizer(texts, truncation=True, max_length=length, add_special_tokens=False)["input_ids"]
        if texts
        else []
    )
    return [{"input_ids": i, "labels": 0} for i in ids]


class Collate:
    """Pads, and masks anew at every call, from its own generator."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = classification.Collate(tokenizer, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.mask, self.size, self.special = (
            tokenizer.mask_token_id,
            len(tokenizer),
            torch.tensor(tokenizer.all_special_ids),
        )

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        padded = self.pad(batch)
        ids = padded["input_ids"]
        chosen = (self._uniform(ids) < PREDICTED) & ~torch.isin(ids, self.special)
        fate = self._uniform(ids)
        noise = torch.randint(self.size, ids.shape, generator=self.generator)
        shown = torch.where(chosen & (fate < MASKED), self.mask, ids)
        shown = torch.where(chosen & (fate >= 1 - RANDOM), noise, shown)
        return {
            "input_ids": shown,
            "attention_mask": padded["attention_mask"],
            "labels": torch.where(chosen, ids, IGNORED),
        }

    def _uniform(self, ids: Tensor) -> Tensor:
        return torch.rand(ids.shape, generator=self.generator)


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Means over the tokens of a text that are predicted; zeros where none is."""
    logits, labels = (
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float(),
        batch["labels"],
    )
    loss = nn.functional.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none")
    right, predicted = logits.argmax(-1) == labels, (labels != IGNORED).sum(1)
    count = predicted.clamp_min(1)
    return {
        "loss_nats": loss.sum(1) / count,
        "correct_fraction": right.sum(1) / count,
        "predictions": predicted,
    }
