"""Batches of random tokens for the steps of a profile, in training and in an evaluation."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from rankwise.core import tasks

HIDDEN = -1e30  # where a token does not see another, in the mask of a pack


def evaluation_batch(request: dict, device: str) -> Callable[[], dict[str, Tensor]] | None:
    """A function that makes the batch of an evaluation, if that is another one than in training.

    `evaluation_shapes` are those of a dataset's own texts (memory/dataset_lengths.py).
    """
    of_batch = {
        shape: request[key]
        for shape, key in (
            ("batch_size", "eval_batch_size"),
            ("sequence_length_tokens", "prompt_length_tokens"),
        )
        if key in request
    }
    of_batch = request.get("evaluation_shapes", of_batch)
    if not of_batch and not request.get("packed"):
        return None
    shapes = {**request["shapes"], **of_batch}
    # Only what is trained on is packed.
    return functools.partial(batch, {**request, "shapes": shapes, "packed": False}, device)


def batch(request: dict, device: str) -> dict[str, Tensor]:
    """Draw random token ids and derive labels from them.

    Args:
        request: A profile's request, with `shapes` and `model`.
        device: Where the tensors are made.

    Returns:
        `input_ids`, (batch, length), and `labels`: one class or number a sequence, (batch,); 0 or 1
        for each class, (batch, classes); a class or the token itself at every place. A target has
        as many tokens as its text, or `target_length_tokens`. If the request says that batches are
        padded, also `attention_mask`, (batch, length); the last token of the first text is padding.
        If they are packed, the mask keeps examples apart (`_apart`).
    """
    shapes = request["shapes"]
    size = (shapes["batch_size"], shapes["sequence_length_tokens"])
    ids = torch.randint(request["model"]["architecture"]["vocab_size"], size, device=device)
    inputs = {"input_ids": ids, "labels": labels_like(ids, shapes)}
    if request.get("packed"):
        inputs |= _apart(ids)
    elif request.get("padded"):
        mask = torch.ones_like(ids)
        mask[0, -1] = 0
        inputs["attention_mask"] = mask
    return inputs


def _apart(ids: Tensor) -> dict[str, Tensor]:
    """What keeps the examples of packs apart, as tasks/instruction_tuning.py makes it.

    Args:
        ids: (batch, length).

    Returns:
        `position_ids`, (batch, length), and `attention_mask` in fp32, (batch, 1, length, length).
        Here each pack is one example, which takes the same memory as several.
    """
    rows, length = ids.shape
    hidden = torch.full((rows, 1, length, length), HIDDEN, device=ids.device).triu_(1)
    positions = torch.arange(length, device=ids.device).repeat(rows, 1)
    return {"position_ids": positions, "attention_mask": hidden}


def labels_like(ids: Tensor, shapes: dict) -> Tensor:
    """Labels with the shape and type of the task's, derived from token ids.

    Args:
        ids: (batch, length).
        shapes: `task`, `classes` and optionally `target_length_tokens`.
    """
    kind, classes = tasks.facts(shapes["task"]).labels, max(shapes["classes"], 1)
    if kind == tasks.CLASS:
        return ids[:, 0] % classes
    if kind == tasks.NUMBER:
        return (ids[:, 0] % 2).float()
    if kind == tasks.CLASSES:
        return (ids[:, :1] % 2).float().expand(-1, classes).contiguous()
    if kind == tasks.TEXT and "target_length_tokens" in shapes:
        return ids[:, :1].expand(-1, shapes["target_length_tokens"]).contiguous()
    return ids % classes if kind == tasks.TAGS else ids
