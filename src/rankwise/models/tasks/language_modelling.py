"""Causal language modelling: one stream of text, cut into blocks; loss in nats a token."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

AUTO_CLASS = "AutoModelForCausalLM"
LABELS = "none"
METRICS = ("perplexity",)
NEW_HEAD = False


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Blocks of exactly `max_length_tokens` tokens; the remainder of the stream is dropped.

    Args:
        rows: with `text`, in order.
        tokenizer: of the model.
        dataset: its entry.

    Returns:
        `{"input_ids": [...]}` for each block.
    """
    return [block for blocks in encode_batches([rows], tokenizer, dataset) for block in blocks]


def encode_batches(
    batches: Iterable[list[dict]], tokenizer: PreTrainedTokenizerBase, dataset: dict
) -> Iterator[list[dict]]:
    """The blocks of `encode`, of rows that come in batches: a block may span two of them.

    Args:
        batches: rows with `text`, in order.
        tokenizer: of the model.
        dataset: its entry.

    Yields:
        The blocks that are whole after each batch.
    """
    length = dataset["max_length_tokens"]
    stream: list[int] = []
    for rows in batches:
        if not rows:
            continue  # the tokenizer refuses an empty list
        texts = [row["text"] for row in rows]
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            stream += ids
        end = len(stream) // length * length
        yield [{"input_ids": stream[start : start + length]} for start in range(0, end, length)]
        stream = stream[end:]


class Collate:
    """Stacks blocks of one length; the model shifts the labels itself.

    Args:
        tokenizer: not used: nothing is padded.
        seed: not used: nothing is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        """Blocks need no padding and no random numbers."""

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        ids = torch.tensor([example["input_ids"] for example in batch])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def predictions(batch: dict[str, Tensor]) -> int:
    """How many predictions the mean loss of a batch averages over.

    A block predicts all of its tokens but the first.
    """
    blocks, tokens = batch["labels"].shape
    return blocks * (tokens - 1)


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """The mean loss of each block, which predicts all of its tokens but the first.

    Args:
        model: with a head for causal language modelling.
        batch: from `Collate`, each tensor (examples, tokens).

    Returns:
        `loss_nats`, a mean over tokens, and `predictions`, of each block.
    """
    ids = batch["input_ids"]  # (examples, tokens)
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits.float()
    loss = nn.functional.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")
    return {"loss_nats": loss.mean(1), "predictions": torch.full_like(ids[:, 0], ids.shape[1] - 1)}
