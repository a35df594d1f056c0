"""Token classification: one tag a word, and the spans of words that the tags mark.

Classes are in the order of CoNLL-2003: O, then B-TYPE and I-TYPE of each type. B begins a span, and
I goes on with it. An I that follows no span of its type begins one, as in seqeval's default.

Each word is predicted at its first token; words behind the longest text are cut off with their
tags.

Source: Tjong Kim Sang & De Meulder 2003, CoNLL-2003 shared task, section 2 (tags, F1 of spans);
Devlin et al. 2019, arXiv 1810.04805, section 5.3 (the first token of a word).
"""

from torch import Tensor, nn, tensor
from transformers import PreTrainedTokenizerBase

from rankwise.models.build import pad_token_id
from rankwise.models.padding import padded, padded_texts

AUTO_CLASS = "AutoModelForTokenClassification"
LABELS = "tags"
METRICS = ("span_f1_fraction", "accuracy_fraction")
NEW_HEAD = True
IGNORED = -100  # the label of tokens that are not predicted
OUTSIDE = 0  # the class O


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Examples with the token ids of the words of each row, and a label for each token.

    Args:
        rows: with `words`, and `label`, the class of each word.
        tokenizer: of the model, a fast one.
        dataset: its entry; texts are cut to its `max_length_tokens`.

    Returns:
        `{"input_ids": [...], "labels": [...]}` for each row, in their order.
    """
    if not rows:
        return []  # the tokenizer refuses an empty list
    words = [row["words"] for row in rows]
    length = dataset["max_length_tokens"]
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=length)
    examples = []
    for number, row in enumerate(rows):
        word_by_token = encoded.word_ids(number)  # None for the tokens that the tokenizer adds
        labels, previous = [], None
        for word in word_by_token:
            is_first = word is not None and word != previous
            labels.append(row["label"][word] if is_first else IGNORED)
            previous = word
        examples.append({"input_ids": encoded["input_ids"][number], "labels": labels})
    return examples


class Collate:
    """Makes a batch of examples, padded to the longest; padding has no label.

    Args:
        tokenizer: of the model; gives the padding token.
        seed: not used: nothing is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = pad_token_id(tokenizer)

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        labels = padded([example["labels"] for example in batch], IGNORED)
        return {**padded_texts(batch, self.pad), "labels": labels}


def predictions(batch: dict[str, Tensor]) -> int:
    """How many predictions the mean loss of a batch averages over: the tokens with a label."""
    return int((batch["labels"] != IGNORED).sum())


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Means over the words of each text, and its numbers of spans.

    Args:
        model: with a head for token classification.
        batch: from `Collate`, each tensor (examples, tokens).

    Returns:
        `loss_nats` and `correct_fraction`, both means over words; `right`, `named` and `labelled`,
        numbers of spans; and `predictions`, the number of words; of each text.
    """
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits, labels = output.logits.float(), batch["labels"]  # (examples, tokens[, classes])
    loss = nn.functional.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none")
    predicted = logits.argmax(-1)
    is_word = labels != IGNORED
    count = is_word.sum(1)
    divisor = count.clamp_min(1)
    right, named, labelled = [], [], []
    for tags, own, mask in zip(predicted, labels, is_word, strict=True):
        found, wanted = spans(tags[mask].tolist()), spans(own[mask].tolist())
        right.append(len(found & wanted))
        named.append(len(found))
        labelled.append(len(wanted))
    return {
        "loss_nats": loss.sum(1) / divisor,
        "correct_fraction": ((predicted == labels) & is_word).sum(1) / divisor,
        "right": tensor(right),
        "named": tensor(named),
        "labelled": tensor(labelled),
        "predictions": count,
    }


def spans(tags: list[int]) -> set[tuple[int, int, int]]:
    """The spans that the classes of a text's words mark.

    Args:
        tags: 0 is O; 2 k + 1 is B and 2 k + 2 is I of the type k.

    Returns:
        (first word, word after the last, type) of each span.
    """
    found, start, kind = set(), 0, None
    for place, tag in enumerate([*tags, OUTSIDE]):
        own_kind = None if tag == OUTSIDE else (tag - 1) // 2
        begins = tag % 2 == 1 or own_kind != kind
        if kind is not None and begins:
            found.add((start, place, kind))
        if own_kind is not None and begins:
            start = place
        kind = own_kind
    return found
