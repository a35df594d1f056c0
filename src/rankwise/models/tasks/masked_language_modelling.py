"""Masked language modelling: 15 % of the tokens are predicted.

Of these, 80 % are masked and 10 % replaced by random tokens.

Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.tasks import classification

AUTO_CLASS = "AutoModelForMaskedLM"
LABELS = "none"
METRICS = ("accuracy_fraction",)
NEW_HEAD = False
PREDICTED, MASKED, RANDOM = 0.15, 0.8, 0.1
IGNORED = -100  # the label of tokens that are not predicted


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Examples with the token ids of each text, without the special tokens of classification.

    Args:
        rows: with `text`.
        tokenizer: of the model.
        dataset: its entry; texts are cut to its `max_length_tokens`.

    Returns:
        `{"input_ids": [...], "labels": 0}` for each row, in their order. `Collate` makes the real
        labels.
    """
    if not rows:
        return []  # the tokenizer refuses an empty list
    texts, length = [row["text"] for row in rows], dataset["max_length_tokens"]
    encoded = tokenizer(texts, truncation=True, max_length=length, add_special_tokens=False)
    # classification.Collate, which pads, wants a label.
    return [{"input_ids": ids, "labels": 0} for ids in encoded["input_ids"]]


class Collate:
    """Pads a batch, and masks it anew at every call, from a generator of its own.

    An example takes as many draws as it has tokens, in the order of the examples. Which tokens are
    predicted therefore depends neither on the size of the batch nor on its padding.

    Args:
        tokenizer: of the model; gives the padding, mask and special tokens.
        seed: of the generator.

    References:
        Devlin et al. 2019, arXiv 1810.04805, section 3.1.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = classification.Collate(tokenizer, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.mask, self.size = tokenizer.mask_token_id, len(tokenizer)
        self.special = torch.tensor(tokenizer.all_special_ids)

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        padded = self.pad(batch)
        shown = padded["input_ids"]  # (examples, tokens)
        labels = torch.full_like(shown, IGNORED)
        for row, example in enumerate(batch):
            length = len(example["input_ids"])
            shown[row, :length], labels[row, :length] = self._masked(shown[row, :length].clone())
        return {**padded, "input_ids": shown, "labels": labels}

    def _masked(self, ids: Tensor) -> tuple[Tensor, Tensor]:  # each (tokens,)
        """The tokens of one example as the model sees them, and their labels."""
        chance, fate = torch.rand(2, len(ids), generator=self.generator)
        noise = torch.randint(self.size, ids.shape, generator=self.generator)
        is_predicted = (chance < PREDICTED) & ~torch.isin(ids, self.special)
        shown = torch.where(is_predicted & (fate < MASKED), self.mask, ids)
        shown = torch.where(is_predicted & (fate >= 1 - RANDOM), noise, shown)
        return shown, torch.where(is_predicted, ids, IGNORED)


def predictions(batch: dict[str, Tensor]) -> int:
    """How many predictions the mean loss of a batch averages over: the tokens with a label."""
    return int((batch["labels"] != IGNORED).sum())


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Means over the predicted tokens of each text; zeros where none is predicted.

    Args:
        model: with a head for masked language modelling.
        batch: from `Collate`, each tensor (examples, tokens).

    Returns:
        `loss_nats` and `correct_fraction`, both means over the predicted tokens, and the number of
        `predictions`, of each text.
    """
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits, labels = output.logits.float(), batch["labels"]  # (examples, tokens[, vocabulary])
    loss = nn.functional.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none")
    right = logits.argmax(-1) == labels
    count = (labels != IGNORED).sum(1)
    divisor = count.clamp_min(1)
    return {
        "loss_nats": loss.sum(1) / divisor,
        "correct_fraction": right.sum(1) / divisor,
        "predictions": count,
    }
