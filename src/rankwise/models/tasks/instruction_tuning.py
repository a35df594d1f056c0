"""Instruction tuning: a prompt and its answer; the loss is on the answer alone, in nats a token.

The answer ends with the end-of-sequence token, which is predicted, too. A prompt and its answer are
tokenised apart, so that the tokens of a prompt are the same in training, in scoring and before a
generation.

Sources: Taori et al. 2023, Stanford Alpaca (the loss on the answer alone); Krell et al. 2021,
arXiv 2107.02027, section 3.2 (packing: positions begin anew, and no attention crosses examples).
"""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankwise.models.build import pad_token_id
from rankwise.models.padding import padded, padded_texts

AUTO_CLASS = "AutoModelForCausalLM"
LABELS = "answer"
METRICS = ("perplexity", "accuracy_fraction")
NEW_HEAD = False
IGNORED = -100  # the label of tokens that are not predicted
# Added to the scores of attention where a token is not seen. It stays finite in bf16, so that a row
# of padding, which sees nothing, has no NaN.
HIDDEN = -1e30


class Pair(NamedTuple):
    """The token ids of a prompt and of its answer, whole.

    Attributes:
        added: How many tokens at the beginning of the prompt the tokenizer adds to every text.
        prompt: Ids, those included.
        answer: Ids, the end-of-sequence token included.
    """

    added: int
    prompt: list[int]
    answer: list[int]


# Encoding -----------------------------------------------------------------------------------------


def encode(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[dict]:
    """Examples with the tokens of each prompt and answer, and the labels of the answer's.

    An example that is too long loses the beginning of its prompt first. An answer is cut only where
    it is longer than `max_length_tokens - 1`; at least one token of it stays.

    Args:
        rows: with `text`, the prompt, and `label`, the answer.
        tokenizer: of the model.
        dataset: its entry: `max_length_tokens`, and `chat` where the tokenizer's chat template
            makes the text.

    Returns:
        `{"input_ids": [...], "labels": [...], "cut_prompts": 0 or 1, "cut_answers": 0 or 1}` for
        each row, in their order; labels are -100 in the prompt.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token, or no chat template; or a prompt has
            no token of its own.
    """
    length = dataset["max_length_tokens"]
    return [_example(pair, length) for pair in _pairs(rows, tokenizer, dataset)]


def encode_batches(
    batches: Iterable[list[dict]], tokenizer: PreTrainedTokenizerBase, dataset: dict
) -> Iterator[list[dict]]:
    """The examples of `encode` to train on; with `packing`, joined to packs.

    A pack has examples in their order, as many as fit into `max_length_tokens`. Its `starts` are
    the indices of their first tokens.

    Args:
        batches: rows with `text` and `label`, in order.
        tokenizer: of the model.
        dataset: its entry.

    Yields:
        The examples, or the packs that are full, of each batch.
    """
    if not dataset.get("packing"):
        yield from encode_scored_batches(batches, tokenizer, dataset)
        return
    length = dataset["max_length_tokens"]
    pack: list[dict] = []
    for rows in batches:
        full = []
        for example in encode(rows, tokenizer, dataset):
            if sum(len(one["input_ids"]) for one in [*pack, example]) > length:
                full.append(_packed(pack))
                pack = []
            pack.append(example)
        yield full
    if pack:
        yield [_packed(pack)]


def encode_scored_batches(
    batches: Iterable[list[dict]], tokenizer: PreTrainedTokenizerBase, dataset: dict
) -> Iterator[list[dict]]:
    """The examples of `encode` to score, one a row: nothing is packed."""
    for rows in batches:
        yield encode(rows, tokenizer, dataset)


def prompt_ids(text: str, tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[int]:
    """The tokens of a prompt as training saw it, ready for generation.

    Args:
        text: the `text` of a prepared row.
        tokenizer: of the model.
        dataset: its entry.

    Returns:
        At most `max_length_tokens - 1` ids: a longer prompt loses its beginning, but for what the
        tokenizer adds to every text.
    """
    added, ids = _prompts([text], tokenizer, dataset)[0]
    return _without_middle(ids, added, dataset["max_length_tokens"] - 1)


def _pairs(rows: list[dict], tokenizer: PreTrainedTokenizerBase, dataset: dict) -> list[Pair]:
    if not rows:
        return []  # the tokenizer refuses an empty list
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token, allowed: one, "
            "which ends each answer; set eos_token in tokenizer_config.json"
        )
    prompts = _prompts([row["text"] for row in rows], tokenizer, dataset)
    if dataset.get("chat"):
        texts = [_chat_answer(row, tokenizer, dataset) for row in rows]
    else:
        texts = [row["label"] for row in rows]
    answers = tokenizer(texts, add_special_tokens=False)["input_ids"]
    pairs = zip(prompts, answers, strict=True)
    return [Pair(*prompt, _ended(answer, end)) for prompt, answer in pairs]


def _ended(answer: list[int], end: int) -> list[int]:
    """An answer up to its last end-of-sequence token, or with one behind it."""
    if end not in answer:  # a chat template may have written it
        return [*answer, end]
    return answer[: len(answer) - answer[::-1].index(end)]


def _prompts(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, dataset: dict
) -> list[tuple[int, list[int]]]:
    """Of each prompt: how many tokens the tokenizer adds before it, and all its tokens.

    Raises:
        ValueError: a prompt has no token of its own. Nothing would predict the answer's first one,
            and `predictions` would count it.
    """
    if dataset.get("chat"):
        written = [_chat_text(_turns(text, dataset), tokenizer) for text in texts]
        encoded = tokenizer(written, add_special_tokens=False)["input_ids"]
        prompts = [(int(ids[:1] == [tokenizer.bos_token_id]), ids) for ids in encoded]
    else:
        prompts = _plain_prompts(texts, tokenizer)
    for text, (_, ids) in zip(texts, prompts, strict=True):
        if not ids:
            raise ValueError(
                f"{tokenizer.name_or_path}: the prompt {text!r:.120} has no token of its own, "
                "allowed: at least 1; drop this row"
            )
    return prompts


def _plain_prompts(
    texts: list[str], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, list[int]]]:
    """As `_prompts`, without a chat template."""
    encoded = tokenizer(texts, return_special_tokens_mask=True)
    prompts = []
    for ids, is_added in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        end = len(ids)
        while end and is_added[end - 1]:  # what it adds behind a text would end the prompt
            end -= 1
        before = 0
        while before < end and is_added[before]:
            before += 1
        prompts.append((before, ids[:end]))
    return prompts


# Chat templates -----------------------------------------------------------------------------------


def _turns(text: str, dataset: dict) -> list[dict[str, str]]:
    """The messages of a prompt: those of the row, or the text as one of the user."""
    return json.loads(text) if "messages" in dataset else [{"role": "user", "content": text}]


def _chat_text(turns: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a prompt by the tokenizer's chat template.

    Raises:
        ValueError: the tokenizer has no template, or the template refuses the messages.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, allowed with "
            "`chat: true`: a model with one; leave `chat` out to train on plain prompts"
        )
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template may raise anything
        raise ValueError(
            f"{tokenizer.name_or_path}: the chat template refuses {turns!r:.120}: {error}"
        ) from error


def _chat_answer(row: dict, tokenizer: PreTrainedTokenizerBase, dataset: dict) -> str:
    """The text that a chat template writes for an answer, behind the prompt."""
    turns = _turns(row["text"], dataset)
    prompt = _chat_text(turns, tokenizer)
    whole = tokenizer.apply_chat_template(
        [*turns, {"role": "assistant", "content": row["label"]}], tokenize=False
    )
    if not whole.startswith(prompt):
        raise ValueError(
            f"{tokenizer.name_or_path}: the chat template writes a prompt otherwise when its "
            f"answer follows ({prompt!r:.120}), allowed: a conversation that begins with the "
            "prompt; use another template, or leave `chat` out"
        )
    return whole[len(prompt) :]


# Truncation and packing ---------------------------------------------------------------------------


def _example(pair: Pair, length: int) -> dict:
    """The example of a prompt and answer, cut to a length."""
    prompt = _without_middle(pair.prompt, pair.added, max(length - len(pair.answer), 1))
    answer = pair.answer[: length - len(prompt)]
    return {
        "input_ids": prompt + answer,
        "labels": [IGNORED] * len(prompt) + answer,
        "cut_prompts": int(len(prompt) < len(pair.prompt)),
        "cut_answers": int(len(answer) < len(pair.answer)),
    }


def _without_middle(prompt: list[int], added: int, length: int) -> list[int]:
    """A prompt of at most `length` tokens: what is added to every text, and the prompt's end."""
    if len(prompt) <= length:
        return prompt
    kept = min(added, length - 1)
    return prompt[:kept] + prompt[len(prompt) - (length - kept) :]


def _packed(examples: list[dict]) -> dict:
    """The pack of some examples."""
    pack: dict = {"input_ids": [], "labels": [], "starts": [], "cut_prompts": 0, "cut_answers": 0}
    for example in examples:
        pack["starts"].append(len(pack["input_ids"]))
        for name, value in example.items():
            pack[name] += value
    return pack


# Batches ------------------------------------------------------------------------------------------


class Collate:
    """Makes a batch of examples, or of packs, padded on the right to the longest.

    In a pack, positions begin anew with each example. The mask is (batch, 1, tokens, tokens) then:
    0 where a token sees another, and `HIDDEN` elsewhere; padding sees nothing.

    Args:
        tokenizer: of the model; gives the padding token.
        seed: not used: nothing is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.pad = pad_token_id(tokenizer)

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        labels = padded([example["labels"] for example in batch], IGNORED)
        texts = {**padded_texts(batch, self.pad), "labels": labels}
        if "starts" not in batch[0]:
            return texts
        return {**texts, **_apart(batch, texts["attention_mask"])}


def _apart(packs: list[dict], mask: Tensor) -> dict[str, Tensor]:
    """The positions and the mask that keep the examples of packs apart.

    Args:
        packs: with `starts`.
        mask: (packs, tokens), 0 at padding.
    """
    positions = torch.zeros_like(mask)
    number = torch.zeros_like(mask)  # of the example that a token belongs to, from 1; 0: padding
    for row, pack in enumerate(packs):
        ends = [*pack["starts"][1:], len(pack["input_ids"])]
        for place, (start, end) in enumerate(zip(pack["starts"], ends, strict=True), 1):
            positions[row, start:end] = torch.arange(end - start)
            number[row, start:end] = place
    is_same = (number[:, :, None] == number[:, None, :]) & (number[:, :, None] > 0)
    is_seen = is_same.tril()  # (packs, tokens, tokens)
    hidden = torch.full(is_seen.shape, HIDDEN).masked_fill(is_seen, 0.0)
    return {"position_ids": positions, "attention_mask": hidden[:, None]}


def predictions(batch: dict[str, Tensor]) -> int:
    """How many predictions the mean loss of a batch averages over: the tokens of the answers.

    The first token of a row has no token before it; it is always one of a prompt.
    """
    return int((batch["labels"] != IGNORED).sum())


def scores(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # each (examples,)
    """Means over the tokens of each answer.

    Args:
        model: with a head for causal language modelling.
        batch: from `Collate`, each tensor (examples, tokens).

    Returns:
        `loss_nats` and `correct_fraction`, means over the answer's tokens, and `predictions`, their
        number, of each example.
    """
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits = output.logits[:, :-1].float()  # (examples, tokens - 1, vocabulary)
    labels = batch["labels"][:, 1:]
    loss = nn.functional.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none")
    count = (labels != IGNORED).sum(1)
    divisor = count.clamp_min(1)
    return {
        "loss_nats": loss.sum(1) / divisor,
        "correct_fraction": (logits.argmax(-1) == labels).sum(1) / divisor,
        "predictions": count,
    }
