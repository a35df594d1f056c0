"""How long the batches of an epoch are: each is padded to its longest text.

The batches are those that training draws: by the same sampler, from the same random seed. Only the
lengths of the encoded examples are read, so an epoch of a million examples takes seconds.
"""

import importlib
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from rankwise.core import tasks
from rankwise.data.order import GROUPED, order
from rankwise.data.tokenised import Examples

PERCENTILE = 99  # at most one batch in a hundred has more tokens


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

    @property
    def tokens(self) -> int:
        """Tokens of all texts and targets, padding included."""
        return self.rows * (self.text_tokens + self.target_tokens)

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

    def largest(self, batch_size: int, longer: int = 0) -> BatchShape:
        """A full batch with the longest text and the longest target.

        Whatever the order, an epoch has a batch with the longest text. So no batch of any epoch,
        of any random seed, is larger.

        Args:
            batch_size: Examples in a full batch.
            longer: How many of the longest texts other batches have.
        """
        whole = self.batch(range(len(self.texts)))
        rows = min(batch_size, len(self.texts))
        longest = int(np.sort(self.texts)[-1 - longer])
        has_padding = rows > 1 and bool(self.texts.min() < longest)
        return BatchShape(rows, longest, whole.target_tokens, has_padding)


def windows(
    examples: Examples, task: str, schedule: dict, seed: int, epochs: int
) -> list[list[BatchShape]]:
    """The shapes of the micro-batches of a run's updates, in their order.

    Training puts micro-batches without a label (of tokens) last in their window; lengths do not
    tell which these are.

    Args:
        examples: Of the train split.
        task: The name of the dataset's task.
        schedule: Its `batch_size`, its `accumulation_steps`, and `group_by_length` if batches are
            grouped.
        seed: The random seed of the run.
        epochs: Of the run.
    """
    lengths = Lengths.of(examples, task)
    generator = torch.Generator().manual_seed(seed)
    drawn = DataLoader(
        range(len(examples)),
        generator=generator,  # the loader draws from it before its sampler does, as in training
        collate_fn=list,
        **order(examples, schedule, generator),
    )
    size = schedule["accumulation_steps"]
    found = []
    for _ in range(epochs):
        shapes = [lengths.batch(places) for places in drawn]
        found += [shapes[start : start + size] for start in range(0, len(shapes), size)]
    return found


def mean(batches: list[BatchShape]) -> BatchShape:
    """A batch of the mean length, rounded up to whole tokens, with the rows of a full one."""
    full = max(batch.rows for batch in batches)
    texts, targets = (
        math.ceil(np.mean([getattr(batch, name) for batch in batches]))
        for name in ("text_tokens", "target_tokens")
    )
    return BatchShape(full, texts, targets, any(batch.has_padding for batch in batches))


def percentile(batches: list[BatchShape]) -> BatchShape:
    """The batch that has at least as many tokens as PERCENTILE % of the batches (nearest rank)."""
    place = math.ceil(PERCENTILE / 100 * len(batches)) - 1
    return sorted(batches, key=lambda batch: (batch.tokens, batch))[place]


def pool_examples(batch_size: int) -> int:
    """How many examples are sorted together, where batches are grouped by length."""
    return importlib.import_module(GROUPED).POOL * batch_size


def largest(batches: Iterable[BatchShape]) -> list[BatchShape]:
    """The batches that no other batch exceeds or equals in every respect; one of them needs most.

    There may be several: the last batch of an epoch may have fewer rows and the longest text.
    """
    kept: list[BatchShape] = []
    for batch in sorted(set(batches), reverse=True):
        if not any(batch.needs_at_most(other) for other in kept):
            kept.append(batch)
    return kept
