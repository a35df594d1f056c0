"""Answers are the most likely text, alike in every batch."""

import pytest

from helpers import byte_decoders
from rankwise.core import tasks
from rankwise.evaluation.generating import generate

TEXTS = ["a", "What is 2+2? ", "long " * 9, "b\nc"]


@pytest.fixture(scope="module")
def decoder():
    return byte_decoders.model()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_decoders.tokenizer()


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer(text)["input_ids"] for text in TEXTS]


def entry(**settings):
    return {"max_new_tokens": 12, "batch_size": 4, **settings}


def test_a_greedy_answer_is_that_of_one_forward_pass_a_token(decoder, tokenizer, prompts):
    expected = [tokenizer.decode(byte_decoders.greedy(decoder, prompt, 12)) for prompt in prompts]
    assert len(set(expected)) > 1
    assert generate(decoder, tokenizer, prompts, entry()) == (expected, 0)


@pytest.mark.parametrize("beams", [1, 4])
def test_an_answer_does_not_depend_on_its_batch(decoder, tokenizer, prompts, beams):
    alone, _ = generate(decoder, tokenizer, prompts, entry(batch_size=1, beams=beams))
    assert generate(decoder, tokenizer, prompts, entry(beams=beams))[0] == alone


def test_prompts_as_training_encodes_them_are_answered_alike_in_a_batch_and_alone(
    decoder, tokenizer
):
    """Prompts of several lengths, one of which is cut: a batch pads the others on the left."""
    dataset = {"task": "instruction_tuning", "max_length_tokens": 20}
    task = tasks.load("instruction_tuning")
    encoded = [task.prompt_ids(text, tokenizer, dataset) for text in TEXTS]
    assert [len(ids) for ids in encoded] == [1, 13, 19, 3]
    expected = [tokenizer.decode(byte_decoders.greedy(decoder, ids, 12)) for ids in encoded]
    for size in (1, 2, 4):
        assert generate(decoder, tokenizer, encoded, entry(batch_size=size)) == (expected, 0)


def test_a_model_s_own_settings_of_generation_change_nothing(decoder, tokenizer, prompts):
    before, _ = generate(decoder, tokenizer, prompts, entry())
    other = byte_decoders.model()
    other.generation_config.repetition_penalty = 5.0
    other.generation_config.do_sample = True
    other.generation_config.temperature = 2.0
    assert generate(other, tokenizer, prompts, entry())[0] == before


def test_an_answer_ends_before_a_stop_text(decoder, tokenizer, prompts):
    (whole,), _ = generate(decoder, tokenizer, prompts[:1], entry())
    stop = whole[5:7]
    (cut,), _ = generate(decoder, tokenizer, prompts[:1], entry(stop=["no such text", stop]))
    assert cut == whole[: whole.index(stop)]


def test_an_end_of_text_token_ends_an_answer(decoder, tokenizer, prompts):
    """The model names its third token of an answer as one that ends a text."""
    tokens = byte_decoders.greedy(decoder, prompts[0], 12)
    other = byte_decoders.model()
    other.generation_config.eos_token_id = [0, tokens[3]]
    (answer,), _ = generate(other, tokenizer, prompts[:1], entry())
    assert answer == tokenizer.decode(tokens[: tokens.index(tokens[3])])


def test_a_long_prompt_loses_its_beginning_and_is_counted(tokenizer):
    small = byte_decoders.model(positions=32)
    long = list(range(1, 60))
    settings = entry(max_new_tokens=8)
    answers, cut = generate(small, tokenizer, [long, [5]], settings)
    assert cut == 1
    assert answers[0] == tokenizer.decode(byte_decoders.greedy(small, long[-24:], 8))


def test_an_answer_must_leave_room_for_a_prompt(tokenizer):
    small = byte_decoders.model(positions=32)
    with pytest.raises(ValueError, match="max_new_tokens: got 32, allowed: below 32"):
        generate(small, tokenizer, [[5]], entry(max_new_tokens=32))
