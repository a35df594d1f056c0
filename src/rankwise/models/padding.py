"""Rows of different lengths as one tensor, filled up on the right."""

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:  # (rows, longest row)
    """The rows, each filled up to the length of the longest one.

    Args:
        rows: Integers, such as token ids or labels; at least one row.
        fill: What stands behind a shorter row.
    """
    table = torch.full((len(rows), max(map(len, rows))), fill)
    for number, row in enumerate(rows):
        table[number, : len(row)] = torch.tensor(row)
    return table


def padded_texts(batch: Sequence[dict], fill: int) -> dict[str, Tensor]:  # each (examples, tokens)
    """The token ids of examples, and the mask that is 0 at padding.

    Args:
        batch: Examples with `input_ids`.
        fill: The padding token.

    Returns:
        `input_ids` and `attention_mask`.
    """
    ids = [example["input_ids"] for example in batch]
    return {
        "input_ids": padded(ids, fill),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
    }
