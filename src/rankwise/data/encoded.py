"""Check the encoded examples of a split before anything is trained on them."""

from collections.abc import Sequence

from rankwise.data.texts import RUNNING_TEXT

MAX_SHOWN = 5  # rows in a sentence
TEXTS = {"input_ids": "texts", "labels": "targets"}  # what the tokens of a column are of
MAX_UNKNOWN_FRACTION = 0.05  # of a split's tokens, where the entry does not say


def check(
    examples: Sequence[dict],
    split: str,
    dataset: dict,
    name: str,
    of_empty_text: Sequence[int],
    column: str = "input_ids",
) -> None:
    """Check that a split gives examples, and that each has a token of its text.

    Args:
        examples: From the task's `encode`, each with `input_ids`.
        split: The name of the split.
        dataset: A resolved entry.
        name: The entry's name, for messages.
        of_empty_text: The token ids of an empty text: what the tokenizer adds to every text.
        column: A key of TEXTS.

    Raises:
        ValueError: Running text is shorter than one block, a split has no rows, a text gives no
            token of its own, or texts are cut to what the tokenizer adds.
    """
    where = f"config/datasets.yaml: {name}: split {split}"
    if not len(examples):
        if dataset["task"] == RUNNING_TEXT and split != "train":
            raise ValueError(f"{where}: got less than two tokens, allowed: text to be scored")
        if dataset["task"] == RUNNING_TEXT:
            length = dataset["max_length_tokens"]
            raise ValueError(
                f"{where}: got less than one block of text, allowed: at least {length:,} tokens; "
                "use a longer text, or lower max_length_tokens"
            )
        raise ValueError(f"{where}: got no rows, allowed: at least 1")
    added, length = set(of_empty_text), dataset["max_length_tokens"]
    empty = [
        number
        for number, example in enumerate(examples, 1)
        if all(token in added for token in example[column])
    ]
    if len(empty) == len(examples) and length <= len(of_empty_text):
        raise ValueError(
            f"config/datasets.yaml: {name}.max_length_tokens: got {length}, allowed: more than "
            f"{len(of_empty_text)}, the tokens that the tokenizer adds to every text"
        )
    if empty:
        shown = ", ".join(map(str, empty[:MAX_SHOWN])) + ", ..." * (len(empty) > MAX_SHOWN)
        texts = TEXTS[column]
        raise ValueError(
            f"{where}: got {_counted(len(empty), texts)} without a token of their own (row {shown} "
            f"of the prepared split), allowed: {texts} with at least 1; drop these {texts}"
        )


def check_known(
    unknown: int,
    tokens: int,
    split: str,
    dataset: dict,
    name: str,
    column: str = "input_ids",
) -> None:
    """Check that the tokenizer knows the texts of a split.

    Args:
        unknown: How many tokens of its texts stand for something that the tokenizer does not know.
        tokens: How many tokens its texts have, without what the tokenizer adds to every text.
        split: The name of the split.
        dataset: A resolved entry, which may have a `max_unknown_fraction` of its own.
        name: The entry's name, for messages.
        column: A key of TEXTS.

    Raises:
        ValueError: Too many of them are unknown.
    """
    allowed = dataset.get("max_unknown_fraction", MAX_UNKNOWN_FRACTION)
    if unknown > allowed * tokens:
        raise ValueError(
            f"config/datasets.yaml: {name}: split {split}: got {unknown:,} of {tokens:,} tokens "
            f"({unknown / tokens:.1%}) that the model's tokenizer does not know, allowed: at most "
            f"{allowed:.1%}; use a model whose tokenizer knows these {TEXTS[column]}, or set "
            "max_unknown_fraction if this share is meant"
        )


def _counted(number: int, texts: str) -> str:
    return f"1 {texts.removesuffix('s')}" if number == 1 else f"{number:,} {texts}"
