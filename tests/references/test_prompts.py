"""Virtual tokens, keys and values, against DistilBERT and BERT written out with them in their place."""

import pytest
import torch
from torch import Tensor

from helpers.encoders import Encoder
from helpers.lockstep import (
    DECAY,
    EPS,
    AdamW,
    Answer,
    Pair,
    check_gradients,
    check_training,
    classified,
    pair,
    plain_name,
)
from references.registry import entries

PROMPT = "prompt_encoder.default."


def parts_of(theirs: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The prompt's parameters by short name, and the plain model's that train (a new head)."""
    prompt = {n.removeprefix(PROMPT): v for n, v in theirs.items() if n.startswith(PROMPT)}
    return prompt, {plain_name(n): v for n, v in theirs.items() if not n.startswith(PROMPT)}


def check(found: Pair, answer: Answer) -> None:
    found.randomise()
    check_gradients(found, answer)
    check_training(found, answer, AdamW())


def virtual_tokens(name: str, prompt: dict[str, Tensor]) -> Tensor:
    """Lester et al. 2021: they train themselves. Liu et al. 2021: an encoder makes them; here an MLP of three layers."""
    tokens = prompt["embedding.weight"]
    if name == "p_tuning":
        for layer in (0, 2, 4):
            tokens = (
                tokens @ prompt[f"mlp_head.{layer}.weight"].mT + prompt[f"mlp_head.{layer}.bias"]
            )
            tokens = tokens.relu() if layer < 4 else tokens
    return tokens


@pytest.mark.parametrize("model", ["tiny", "minilm"])
@pytest.mark.parametrize(
    "name", entries("test_prompts.py::test_virtual_tokens_stand_before_the_text")
)
def test_virtual_tokens_stand_before_the_text(name: str, model: str) -> None:
    """They take the first positions, and the first of them is what classifies."""
    found = pair(name, model, optimizer={"weight_decay": DECAY, "eps": EPS})

    def answer(theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        prompt, trained = parts_of(theirs)
        encoder, ids = Encoder(found.plain, trained), found.batch["input_ids"]
        tokens = virtual_tokens(name, prompt).expand(len(ids), -1, -1)
        words = torch.cat([tokens, encoder.words(ids)], 1)
        return classified(found, encoder.logits(words, torch.ones(words.shape[:2])))

    check(found, answer)


class Prefixed(Encoder):
    """Li and Liang 2021, eq. 3: p keys and values of its own before those of the text, in every layer."""

    def __init__(self, found: Pair, theirs: dict[str, Tensor]):
        prompt, trained = parts_of(theirs)
        super().__init__(found.plain, trained)
        self.prefix = prompt["embedding.weight"]

    def keys_and_values(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        d = key.shape[-1]
        joined = []
        for place, whole in ((2 * layer, key), (2 * layer + 1, value)):
            own = self.prefix[:, place * d : (place + 1) * d].expand(len(whole), -1, -1)
            joined.append(torch.cat([own, whole], 1))
        return joined[0], joined[1]

    def embed(self, words: Tensor) -> Tensor:
        """The text's positions begin after the prefix, as transformers counts them."""
        before = words.new_zeros(len(words), len(self.prefix), words.shape[2])
        return super().embed(torch.cat([before, words], 1))[:, len(self.prefix) :]


@pytest.mark.parametrize(
    "name", entries("test_prompts.py::test_a_prefix_is_keys_and_values_of_every_layer")
)
def test_a_prefix_is_keys_and_values_of_every_layer(name: str) -> None:
    found = pair(name, "minilm", optimizer={"weight_decay": DECAY, "eps": EPS})

    def answer(theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        encoder = Prefixed(found, theirs)
        words = encoder.words(found.batch["input_ids"])
        return classified(found, encoder.logits(words, found.batch["attention_mask"]))

    check(found, answer)
