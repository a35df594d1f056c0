"""Sequence to sequence: the text that an encoder-decoder writes; loss in nats a target token.

The decoder gets the target itself up to each token (teacher forcing), in training and in the
scores. So the accuracy is that of single next tokens, and nothing here is generated.

Source: Sutskever et al. 2014, arXiv 1409.3215, equation 1; teacher forcing is Williams & Zipser
1989.
"""

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.build import pad_token_id
from rankwise.models.padding import padded, padded_texts
from rankwise.models.tasks import token_classification

AUTO_CLASS = "AutoModelForSeq2SeqLM"
LABELS = "text"
METRICS = ("perplexity", "accuracy_fraction")
NEW_HEAD = False
IGNORED = -100  # the label of padding

predictions = token_classification.predictions  # of the targets' tokens, as many as have a label


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Examples with the token ids of the text and of the target of each row.

    Args:
        rows: with `text` and `label`, the target.
        tokenizer: of the model.
        dataset: its entry; texts and targets are each cut to its `max_length_tokens`.

    Returns:
        `{"input_ids": [...], "labels": [...]}` for each row, in their order.
    """
    if not rows:
        return []  # the tokenizer refuses an empty list
    cut = {"truncation": True, "max_length": dataset["max_length_tokens"]}
    texts = tokenizer([row["text"] for row in rows], **cut)["input_ids"]
    # Some tokenizers mark the two languages of a translation.
    targets = tokenizer(text_target=[row["label"] for row in rows], **cut)["input_ids"]
    pairs = zip(texts, targets, strict=True)
    return [{"input_ids": text, "labels": target} for text, target in pairs]


class Collate:
    """Makes a batch of examples; texts and targets are each padded to their longest.

    The model makes the decoder's inputs itself: the labels, shifted by one place. So the mask of
    the decoder is that of the labels.

    Args:
        tokenizer: of the model; gives the padding token.
        seed: not used: nothing is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = pad_token_id(tokenizer)

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        labels = padded([example["labels"] for example in batch], IGNORED)
        mask = (labels != IGNORED).long()
        texts = padded_texts(batch, self.pad)
        return {**texts, "decoder_attention_mask": mask, "labels": labels}


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Means over the tokens of each target.

    Args:
        model: an encoder with a decoder.
        batch: from `Collate`: ids and mask (examples, tokens), labels and the decoder's mask
            (examples, target tokens).

    Returns:
        `loss_nats` and `correct_fraction`, means over the target's tokens, and `predictions`, their
        number, of each example.
    """
    labels = batch["labels"]
    logits = model(**batch).logits.float()  # (examples, target tokens, vocabulary)
    loss = nn.functional.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none")
    is_target = labels != IGNORED
    count = is_target.sum(1)
    divisor = count.clamp_min(1)
    return {
        "loss_nats": loss.sum(1) / divisor,
        "correct_fraction": ((logits.argmax(-1) == labels) & is_target).sum(1) / divisor,
        "predictions": count,
    }
