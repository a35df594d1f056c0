"""A split that gives nothing to train or report on is refused, with its name, before training."""

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rankwise.data import encoded
from rankwise.models.tasks import classification, language_modelling

DATASET = {"task": "language_modelling", "max_length_tokens": 4}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words of one letter; no special tokens, as GPT-2's tokenizer adds none."""
    tokenizer = Tokenizer(WordLevel({letter: index for index, letter in enumerate("abcdef")}, "f"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="f")


@pytest.fixture
def check(tokenizer) -> Callable[..., None]:
    def run(module, rows: list[dict], split: str = "validation", **changes: object) -> None:
        dataset = {**DATASET, **changes}
        encoded.check(
            module.encode(rows, tokenizer, dataset),
            split,
            dataset,
            "mine",
            tokenizer("")["input_ids"],
        )

    return run


def test_whole_blocks_pass(check) -> None:
    check(language_modelling, [{"text": "a b"}, {"text": "c d"}])


@pytest.mark.parametrize("rows", [[{"text": "a b c"}], []])
def test_running_text_below_one_block_is_refused(rows: list[dict], check) -> None:
    with pytest.raises(ValueError) as caught:
        check(language_modelling, rows, "train")
    assert str(caught.value) == (
        "config/datasets.yaml: mine: split train: got less than one block of text, allowed: at "
        "least 4 tokens; use a longer text, or lower max_length_tokens"
    )
    with pytest.raises(ValueError) as caught:
        check(language_modelling, rows)
    assert str(caught.value) == (
        "config/datasets.yaml: mine: split validation: got less than two tokens, allowed: text to "
        "be scored"
    )


def test_a_text_without_a_token_is_refused_with_its_row(check) -> None:
    rows = [{"text": text, "label": 0} for text in ("a", "", "b", "\u00a0")]
    check(classification, rows[:1], task="classification")
    with pytest.raises(ValueError) as caught:
        check(classification, rows, task="classification")
    assert str(caught.value) == (
        "config/datasets.yaml: mine: split validation: got 2 texts without a token of their own "
        "(row 2, 4 of the prepared split), allowed: texts with at least 1; drop these texts"
    )


@pytest.fixture(scope="module")
def framing() -> PreTrainedTokenizerFast:
    """Words of one letter between two special tokens, as BERT's tokenizer adds them."""
    tokenizer = Tokenizer(WordLevel({"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "a": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def check_framed(tokenizer, texts: list[str], length_tokens: int) -> None:
    dataset = {"task": "classification", "max_length_tokens": length_tokens}
    rows = [{"text": text, "label": 0} for text in texts]
    examples = classification.encode(rows, tokenizer, dataset)
    encoded.check(examples, "train", dataset, "mine", tokenizer("")["input_ids"])


def test_a_length_that_leaves_only_special_tokens_is_refused(framing) -> None:
    check_framed(framing, ["a a", "b"], 3)  # an unknown word is a token of its text
    with pytest.raises(ValueError) as caught:
        check_framed(framing, ["a a", "b"], 2)
    assert str(caught.value) == (
        "config/datasets.yaml: mine.max_length_tokens: got 2, allowed: more than 2, the tokens that "
        "the tokenizer adds to every text"
    )


def test_a_text_of_special_tokens_alone_is_refused_with_its_row(framing) -> None:
    with pytest.raises(
        ValueError, match=r"split train: got 1 text without a token of their own \(row 2 of"
    ):
        check_framed(framing, ["a", " "], 5)
