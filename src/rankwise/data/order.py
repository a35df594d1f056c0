"""Which examples form a batch, and in which order the batches of an epoch come.

Training draws its batches so. A profile that asks for a dataset's own lengths draws the same ones.
"""

import importlib
from collections.abc import Sequence

import torch

# Imported by name, where a schedule asks for it, so that other runs do not depend on it.
GROUPED = "rankwise.data.grouped"


def order(examples: Sequence[dict], schedule: dict, generator: torch.Generator) -> dict:
    """The arguments of a DataLoader that decide its batches.

    Args:
        examples: Of the train split.
        schedule: Its `batch_size`, and `group_by_length` if batches are grouped.
        generator: What the order is drawn from. The loader gets it, too.
    """
    if not schedule.get("group_by_length"):
        return {"batch_size": schedule["batch_size"], "shuffle": True}
    grouped = importlib.import_module(GROUPED)
    lengths = grouped.lengths_tokens(examples)
    sampler = grouped.GroupedBatches(lengths, schedule["batch_size"], generator)
    return {"batch_sampler": sampler}
