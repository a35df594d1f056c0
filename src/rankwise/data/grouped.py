"""Batches of texts of similar length, which need less padding than batches drawn at random.

An epoch is one random order of all examples, so each is seen once. POOL batches at a time are
sorted by length, from the longest text to the shortest, and cut into batches; the batches then
come in random order. Only the batch with the longest text of all comes first, so that a run that
lacks memory fails at its first update and not at a later one.

This module is imported by name, where a schedule asks for it.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL = 50  # batches whose examples are sorted together: texts of one batch are alike, yet drawn
COLUMN = "input_ids"  # an example's tokens


def lengths_tokens(examples: Sequence[dict]) -> list[int]:
    """The length of each example, in tokens; of a pair, that of its text."""
    return [len(example[COLUMN]) for example in examples]


class GroupedBatches(Sampler[list[int]]):
    """The batches of an epoch, each as a list of places among the examples.

    Args:
        lengths: Of each example, in tokens.
        batch_size: Examples in a batch; one batch of an epoch may have fewer.
        generator: What the order is drawn from, anew for each epoch.
    """

    def __init__(self, lengths: list[int], batch_size: int, generator: torch.Generator):
        self.lengths, self.batch_size, self.generator = lengths, batch_size, generator

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        yield from grouped(self._drawn(), self.lengths, self.batch_size, self.generator)

    def _drawn(self) -> list[int]:
        return torch.randperm(len(self.lengths), generator=self.generator).tolist()


def grouped(
    drawn: list[int], lengths: list[int], batch_size: int, generator: torch.Generator
) -> list[list[int]]:
    """The batches of one epoch.

    Args:
        drawn: All places in random order.
        lengths: By place, in tokens.
        batch_size: Examples in a batch.
        generator: What the order of the batches is drawn from.
    """
    pool = POOL * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(drawn), pool):
        # Stable: texts of one length stay in the order in which they were drawn.
        by_length = sorted(drawn[start : start + pool], key=lambda place: -lengths[place])
        batches += _cut(by_length, batch_size)
    longest = max(range(len(batches)), key=lambda number: lengths[batches[number][0]])
    order = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[longest], *(batches[number] for number in order if number != longest)]


def _cut(places: list[int], batch_size: int) -> list[list[int]]:
    return [places[start : start + batch_size] for start in range(0, len(places), batch_size)]


def padding_tokens(batches: list[list[int]], lengths: list[int]) -> int:
    """Tokens of padding if every batch is padded to its longest text."""
    padding = 0
    for batch in batches:
        of_batch = [lengths[place] for place in batch]
        padding += len(batch) * max(of_batch) - sum(of_batch)
    return padding


def padding_of_an_epoch(lengths: list[int], batch_size: int, seed: int) -> dict[str, int]:
    """The padding of one epoch, and what grouping saves of it.

    The epoch is one drawn with the run's random seed. Other epochs differ a little.

    Args:
        lengths: Of each example, in tokens.
        batch_size: Examples in a batch.
        seed: The random seed of the order.

    Returns:
        `epoch_padding_tokens`, with batches by length, and `epoch_padding_saved_tokens`: what the
        same order of examples would have more if it were cut into batches as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(lengths), generator=generator).tolist()
    padding = padding_tokens(grouped(drawn, lengths, batch_size, generator), lengths)
    at_random = padding_tokens(_cut(drawn, batch_size), lengths)
    return {"epoch_padding_tokens": padding, "epoch_padding_saved_tokens": at_random - padding}
