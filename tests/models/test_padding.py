"""Rows of different lengths, filled up on the right."""

import torch

from rankwise.models.padding import padded, padded_texts


def test_shorter_rows_are_filled_up() -> None:
    assert padded([[1, 2, 3], [4]], -100).tolist() == [[1, 2, 3], [4, -100, -100]]


def test_rows_without_anything_are_integers_too() -> None:
    assert padded([[], []], 0).shape == (2, 0)
    assert padded([[]], 0).dtype == torch.int64


def test_the_mask_is_zero_at_padding_alone() -> None:
    """A token of a text may be the padding token."""
    batch = padded_texts([{"input_ids": [7, 9]}, {"input_ids": [9]}], 9)
    assert batch["input_ids"].tolist() == [[7, 9], [9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
