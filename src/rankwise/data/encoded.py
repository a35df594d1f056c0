"""Check the encoded examples of a split before anything is trained on them."""

from collections.abc import Sequence

from rankwise.data.texts import RUNNING_TEXT

MAX_SHOWN = 5  # rows in a sentence


def check(examples: Sequence[dict], split: str, dataset: dict, name: str) -> None:
    """Check that a split gives examples, and that none of them is empty.

    Args:
        examples: From the task's `encode`, each with `input_ids`.
        split: The name of the split.
        dataset: A resolved entry.
        name: The entry's name, for messages.

    Raises:
        ValueError: Running text is shorter than one block, a split has no rows, or a text gives no
            token: the tokenizer knows nothing of it and adds no special tokens.
    """
    where = f"config/datasets.yaml: {name}: split {split}"
    if not len(examples):
        if dataset["task"] == RUNNING_TEXT:
            length = dataset["max_length_tokens"]
            raise ValueError(
                f"{where}: got less than one block of text, allowed: at least {length:,} tokens; "
                "use a longer text, or lower max_length_tokens"
            )
        raise ValueError(f"{where}: got no rows, allowed: at least 1")
    empty = [number for number, example in enumerate(examples, 1) if not len(example["input_ids"])]
    if empty:
        shown = ", ".join(map(str, empty[:MAX_SHOWN])) + ", ..." * (len(empty) > MAX_SHOWN)
        raise ValueError(
            f"{where}: got {len(empty):,} texts without a token (row {shown} of the prepared "
            "split), allowed: texts with at least 1; the tokenizer adds no special tokens, so "
            "drop these texts"
        )
