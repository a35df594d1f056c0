"""Generate answers in batches; the most likely text, never a drawn one."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rankwise.core import progress


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    entry: dict,
) -> tuple[list[str], int]:
    """The answers to prompts.

    Prompts of a batch are padded on the left, so each answer begins right behind its prompt.

    Args:
        model: In evaluation mode.
        tokenizer: That of the model.
        prompts: The token ids of each prompt.
        entry: Of the evaluation: `max_new_tokens`, `batch_size`; optional `beams`, the width of a
            beam search (1: greedy), and `stop`, texts that end an answer.

    Returns:
        The text of each answer, without its end-of-text token and without a stop text and what
        follows it; and how many prompts lost their beginning, because the model has too few
        positions.

    Raises:
        ValueError: The model has no position for a prompt beside the answer's, or the tokenizer
            has no token to pad with.
    """
    room = _room(model, entry["max_new_tokens"])
    cut = [prompt[-room:] for prompt in prompts]
    ends = _end_tokens(model, tokenizer)
    padding = tokenizer.pad_token_id
    if padding is None:
        padding = ends[0] if ends else None
    if padding is None:
        raise ValueError(
            "tokenizer: got neither a padding token nor an end-of-text token, allowed: a tokenizer "
            "with one of them, to generate in batches"
        )
    config = GenerationConfig(
        do_sample=False,
        num_beams=entry.get("beams", 1),
        max_new_tokens=entry["max_new_tokens"],
        # Given, so that the model's own generation_config.json does not change the answers.
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=padding,
        eos_token_id=ends or None,
    )
    answers = []
    for start in range(0, len(cut), entry["batch_size"]):
        batch = cut[start : start + entry["batch_size"]]
        for tokens in _generated(model, batch, padding, config):
            answers.append(_text(tokenizer, tokens, ends, entry.get("stop", [])))
        progress.doing(f"generated {len(answers):,} of {len(cut):,} answers")
    return answers, sum(len(prompt) > room for prompt in prompts)


def _room(model: PreTrainedModel, new_tokens: int) -> int:
    """The positions that are left for a prompt."""
    positions = getattr(model.config, "max_position_embeddings", None)
    room = (positions or 2**31) - new_tokens
    if room < 1:
        raise ValueError(
            f"config/evaluations.yaml: max_new_tokens: got {new_tokens}, allowed: below "
            f"{positions}, the positions of the model"
        )
    return room


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a text: first the tokenizer's, then the model's."""
    named = getattr(model.generation_config, "eos_token_id", None)
    named = named if isinstance(named, list) else [named]
    return [token for token in dict.fromkeys([tokenizer.eos_token_id, *named]) if token is not None]


def _generated(
    model: PreTrainedModel, batch: list[list[int]], padding: int, config: GenerationConfig
) -> list[list[int]]:
    """The tokens behind each prompt of a batch."""
    longest = max(map(len, batch))
    ids = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in batch])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
    device = next(model.parameters()).device
    output = model.generate(
        input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
    )
    return output[:, longest:].tolist()


def _text(
    tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: list[int], stops: list[str]
) -> str:
    """The text up to the first end-of-text token or stop text."""
    for place, token in enumerate(tokens):
        if token in ends:
            tokens = tokens[:place]
            break
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text
