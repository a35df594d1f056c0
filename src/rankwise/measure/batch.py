"""A batch without values, for models on the meta device."""

from torch import Tensor, zeros


def meta_batch(shapes: dict) -> dict[str, Tensor]:
    """Token ids (batch, length) and a ready mask (batch, 1, length, length), which no model looks into."""
    batch, length = shapes["batch_size"], shapes["sequence_length_tokens"]
    ids = zeros(batch, length, dtype=int, device="meta")
    return {"input_ids": ids, "attention_mask": zeros(batch, 1, length, length, device="meta")}
