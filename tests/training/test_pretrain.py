"""The tokenizer of a tiny decoder: characters, and a line's end that ends a text."""

import pytest

from rankwise.training.pretrain import character_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer(["7 and 5 make 12\n", "é"])


def test_a_character_is_a_token_and_a_text_comes_back(tokenizer):
    text = "12+7=19 {é}\nso"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


def test_the_end_of_a_line_ends_a_text_and_nothing_is_added(tokenizer):
    assert tokenizer("a\n")["input_ids"][-1] == tokenizer.eos_token_id
    assert tokenizer("")["input_ids"] == []


def test_a_character_outside_of_the_corpus_and_ascii_is_unknown(tokenizer):
    assert tokenizer("ß")["input_ids"] == [tokenizer.unk_token_id]
    assert tokenizer.unk_token_id not in tokenizer("~Z#")["input_ids"]
