"""Causal language modelling: one stream of text; loss in nats a token.

Training cuts the stream into blocks. Scoring slides a window over it by `stride_tokens`: each token
is scored once, in the first window that has it, after the tokens that the window has before it. The
first token of the stream has none and is not scored. With the default stride, a window's length,
windows do not overlap, and none of their first tokens is scored.

Words are what white space separates in a row of the data, and bytes are those of its UTF-8. Each
belongs to the token that ends it, and counts where this token is scored. So sums over a split are
the words and bytes of its raw text, less those of tokens that are not scored.

Sources: Baevski & Auli 2019, arXiv 1809.10853 (windows that overlap, so that each token is scored
with context); Gao et al. 2020, arXiv 2101.00027, section 3.1 (bits per byte).
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.padding import padded_texts

AUTO_CLASS = "AutoModelForCausalLM"
LABELS = "none"
METRICS = ("perplexity", "word_perplexity", "bits_per_byte")
NEW_HEAD = False
IGNORED = -100  # the label of tokens that are not predicted
WORD = re.compile(r"\S+")
FIRST = "first_scored"
ANY_TOKEN = 0  # padding is never attended to


# Training -----------------------------------------------------------------------------------------


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


# Scoring ------------------------------------------------------------------------------------------


@dataclass
class _Stream:
    """The tokens of a text, with what each of them ends.

    Attributes:
        ids: Token ids.
        words: How many words each token ends.
        bytes: How many bytes each token ends.
        begin: Index of the next window's first token.
        scored: Index of the first token that no window has scored.
    """

    ids: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    begin: int = 0
    scored: int = 0

    def add(self, text: str, ids: list[int], ends: list[int]) -> None:
        """Add the tokens of a row.

        Args:
            text: Of the row.
            ids: Of its tokens.
            ends: Index in the text behind the last character of each token.
        """
        if not ids and self.ids:  # what a row without a token has belongs to the token before it
            self.words[-1] += len(WORD.findall(text))
            self.bytes[-1] += len(text.encode())
        words, sizes = _ended(text, ends)
        self.ids += ids
        self.words += words
        self.bytes += sizes

    def window(self, length: int) -> dict:
        """The example of the next window, of at most `length` tokens."""
        first = max(self.scored, self.begin + 1)
        end = min(self.begin + length, len(self.ids))
        return {
            "input_ids": self.ids[self.begin : end],
            FIRST: first - self.begin,
            "words": sum(self.words[first:end]),
            "text_bytes": sum(self.bytes[first:end]),
        }

    def move(self, length: int, stride: int) -> None:
        """Go on to the window that begins `stride` tokens later."""
        self.scored = self.begin + length
        self.begin += stride

    def forget(self) -> None:
        """Drop the tokens that no window will have."""
        for values in (self.ids, self.words, self.bytes):
            del values[: self.begin]
        self.scored -= self.begin
        self.begin = 0


def encode_scored_batches(
    batches: Iterable[list[dict]], tokenizer: PreTrainedTokenizerBase, dataset: dict
) -> Iterator[list[dict]]:
    """Windows over the stream of all rows, the last one as long as what is left.

    Args:
        batches: rows with `text`, in order.
        tokenizer: of the model, a fast one.
        dataset: its entry: `max_length_tokens`, the length of a window, and `stride_tokens`, how
            far it moves.

    Yields:
        The windows that are whole after each batch: `input_ids`; `first_scored`, the index of the
        first token that is scored; `words` and `text_bytes`, which the scored tokens end.
    """
    length = dataset["max_length_tokens"]
    stride = dataset.get("stride_tokens", length)
    stream = _Stream()
    for rows in batches:
        if not rows:
            continue  # the tokenizer refuses an empty list
        texts = [row["text"] for row in rows]
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        for number, text in enumerate(texts):
            ends = [end for _, end in encoded["offset_mapping"][number]]
            stream.add(text, encoded["input_ids"][number], ends)
        windows = []
        # The last token waits: a later row without tokens belongs to it.
        while len(stream.ids) > stream.begin + length:
            windows.append(stream.window(length))
            stream.move(length, stride)
        stream.forget()
        yield windows
    if len(stream.ids) > max(stream.scored, 1):
        yield [stream.window(length)]


def _ended(text: str, ends: list[int]) -> tuple[list[int], list[int]]:
    """How many words and bytes of a text each of its tokens ends.

    What follows the last token, such as white space that the tokenizer drops, belongs to it.
    """
    if not ends:
        return [], []
    # Tokens of parts of one character have the same end: the last of them ends it.
    places = list(itertools.accumulate(ends, max))
    places[-1] = len(text)
    word_ends = [match.end() for match in WORD.finditer(text)]
    words, sizes, before, passed = [], [], 0, 0
    for number, place in enumerate(places):
        is_shared = number + 1 < len(places) and places[number + 1] == place
        end = before if is_shared else place
        count = passed
        while count < len(word_ends) and word_ends[count] <= end:
            count += 1
        words.append(count - passed)
        sizes.append(len(text[before:end].encode()))
        before, passed = end, count
    return words, sizes


# Batches ------------------------------------------------------------------------------------------


class Collate:
    """Stacks blocks, and pads windows on the right to the longest; the model shifts the labels.

    Args:
        tokenizer: not used: padding is never attended to, so any token serves.
        seed: not used: nothing is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        """Blocks and windows need no padding token and no random numbers."""

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        stacked = padded_texts(batch, ANY_TOKEN)
        is_scored = stacked["attention_mask"].bool()
        for row, example in enumerate(batch):
            is_scored[row, : example.get(FIRST, 0)] = False
        stacked["labels"] = stacked["input_ids"].where(is_scored, IGNORED)
        for name in ("words", "text_bytes"):
            if name in batch[0]:
                stacked[name] = torch.tensor([example[name] for example in batch])
        return stacked


def predictions(batch: dict[str, Tensor]) -> int:
    """How many predictions the mean loss of a batch averages over.

    A block predicts all of its tokens but the first.
    """
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """The mean loss of each window over its scored tokens, and what they spell.

    Args:
        model: with a head for causal language modelling.
        batch: from `Collate`: ids, mask and labels (examples, tokens), words and text_bytes
            (examples,).

    Returns:
        `loss_nats`, a mean over tokens, `predictions`, their number, `words` and `text_bytes`, of
        each window.
    """
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits, labels = output.logits[:, :-1].float(), batch["labels"][:, 1:]
    loss = nn.functional.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none")
    count = (labels != IGNORED).sum(1)
    return {
        "loss_nats": loss.sum(1) / count.clamp_min(1),
        "predictions": count,
        "words": batch["words"],
        "text_bytes": batch["text_bytes"],
    }
