"""Generation in an evaluation: texts go in, and each gets the same number of further tokens.

It is transformers' own greedy loop with a KV cache. No token ends a text, so all take every step,
as the longest answer of a batch does. On the meta device no number tells whether a text has ended,
so steps are counted.

This module is imported by name, where a profile asks for it.
"""

import itertools
from unittest import mock

from torch import Tensor, nn
from transformers import GenerationConfig


def generate(model: nn.Module, batch: dict[str, Tensor], tokens: int) -> None:
    """Generate tokens after each text of a batch.

    Args:
        model: A causal language model in evaluation mode; peft's wrapper of one as well.
        batch: `input_ids`, (batch, length), and `attention_mask` if texts are padded.
        tokens: Generated after each text.
    """
    ids = batch["input_ids"]
    mask = batch.get("attention_mask", ids.new_ones(ids.shape))
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    without_end = GenerationConfig(use_cache=True)
    asked = GenerationConfig(max_new_tokens=tokens, do_sample=False, use_cache=True)
    steps = itertools.count()
    with (
        mock.patch.object(base, "generation_config", without_end),
        mock.patch.object(base, "_has_unfinished_sequences", lambda *_, **__: next(steps) < tokens),
    ):
        model.generate(input_ids=ids, attention_mask=mask, generation_config=asked)
