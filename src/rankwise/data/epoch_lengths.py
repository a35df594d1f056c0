"""How long the batches of an epoch are: each is padded to its longest text.

The batches are those that training draws: by the same sampler, from the same random seed. Only the
lengths of the encoded examples are read, so an epoch of a million examples takes seconds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from rankwise.core import tasks
from rankwise.data.order import order
from rankwise.data.tokenised import Examples

PERCENTILE = 99  # at most one batch in a hundred is longer


class BatchShape(NamedTuple):
    """The shape of a batch.

    Attributes:
        rows: Examples.
        text_tokens: Tokens of each text, padding included.
        target_tokens: Tokens of each target, padding included; 0 where targets have no length of
            their own.
        has_padding: Whether some text is shorter than the longest.
    """

    rows: int
    text_tokens: int
    target_tokens: int
    has_padding: bool

    def needs_at_most(self, other: "BatchShape") -> bool:
        """Whether the other batch is at least as large in every respect."""
        return all(own <= theirs for own, theirs in zip(self, other, strict=True))


class Lengths(NamedTuple):
    """The lengths of the examples of a split.

    Attributes:
        texts: Tokens of each text, (examples,).
        targets: Tokens of each target, (examples,); None where targets have no length of their own.
    """

    texts: np.ndarray
    targets: np.ndarray | None

    @classmethod
    def of(cls, examples: Examples, task: str) -> "Lengths":
        """The lengths of encoded examples of a task."""
        has_targets = tasks.facts(task).labels == tasks.TEXT
        return cls(examples.lengths(), examples.lengths("labels") if has_targets else None)

    def batch(self, places: Sequence[int]) -> BatchShape:
        """The shape of a batch.

        Args:
            places: Of its examples in the split.
        """
        texts = self.texts[places]
        longest = int(texts.max())
        targets = 0 if self.targets is None else int(self.targets[places].max())
        return BatchShape(len(texts), longest, targets, bool(texts.min() < longest))

    def largest(self, batch_size: int) -> BatchShape:
        """A full batch with the longest text and the longest target.

        Whatever the order, an epoch has a batch with the longest text. So no batch of any epoch,
        of any random seed, is larger.

        Args:
            batch_size: Examples in a full batch.
        """
        whole = self.batch(range(len(self.texts)))
        rows = min(batch_size, len(self.texts))
        return whole._replace(rows=rows, has_padding=whole.has_padding and rows > 1)


def epoch(examples: Examples, task: str, schedule: dict, seed: int) -> list[BatchShape]:
    """The shapes of the batches of a run's first epoch, in their order.

    Args:
        examples: Of the train split.
        task: The name of the dataset's task.
        schedule: Its `batch_size`, and `group_by_length` if batches are grouped.
        seed: The random seed of the run.
    """
    lengths = Lengths.of(examples, task)
    generator = torch.Generator().manual_seed(seed)
    drawn = DataLoader(
        range(len(examples)),
        generator=generator,  # the loader draws from it before its sampler does, as in training
        collate_fn=list,
        **order(examples, schedule, generator),
    )
    return [lengths.batch(places) for places in drawn]


def mean(batches: list[BatchShape]) -> BatchShape:
    """A batch of the mean length, rounded up to whole tokens, with the rows of a full one."""
    full = max(batch.rows for batch in batches)
    texts, targets = (
        math.ceil(np.mean([getattr(batch, name) for batch in batches]))
        for name in ("text_tokens", "target_tokens")
    )
    return BatchShape(full, texts, targets, any(batch.has_padding for batch in batches))


def percentile(batches: list[BatchShape]) -> BatchShape:
    """A full batch as long as PERCENTILE % of the batches are at most (nearest rank)."""
    full = max(batch.rows for batch in batches)
    place = math.ceil(PERCENTILE / 100 * len(batches)) - 1
    texts, targets = (
        sorted(getattr(batch, name) for batch in batches)[place]
        for name in ("text_tokens", "target_tokens")
    )
    return BatchShape(full, texts, targets, any(batch.has_padding for batch in batches))


def largest(batches: list[BatchShape]) -> list[BatchShape]:
    """The batches that no other batch exceeds or equals in every respect; one of them needs most.

    There may be several: the last batch of an epoch may have fewer rows and the longest text.
    """
    kept: list[BatchShape] = []
    for batch in sorted(set(batches), reverse=True):
        if not any(batch.needs_at_most(other) for other in kept):
            kept.append(batch)
    return kept
