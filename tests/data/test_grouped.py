"""Batches by length: each example once an epoch, less padding, the longest first, resumable."""

import itertools

import torch
from torch.utils.data import DataLoader

from rankwise.data.grouped import (
    POOL,
    GroupedBatches,
    grouped,
    lengths_tokens,
    padding_of_an_epoch,
    padding_tokens,
)
from rankwise.training.batches import ResumableBatches


def drawn_lengths(count: int) -> list[int]:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(5, 200, (count,), generator=generator).tolist()


def batches_of(count: int, batch_size: int, seed: int = 0) -> list[list[int]]:
    lengths = drawn_lengths(count)
    return list(GroupedBatches(lengths, batch_size, torch.Generator().manual_seed(seed)))


def test_an_epoch_sees_each_example_once() -> None:
    lengths, generator = drawn_lengths(1003), torch.Generator().manual_seed(0)
    sampler = GroupedBatches(lengths, 8, generator)
    epochs = [list(sampler), list(sampler)]
    for batches in epochs:
        assert len(batches) == len(sampler) == 126
        assert sorted(place for batch in batches for place in batch) == list(range(1003))
        assert sorted(len(batch) for batch in batches) == [3, *([8] * 125)]
        assert max(lengths) in [lengths[place] for place in batches[0]]
    assert epochs[0] != epochs[1]


def test_the_random_seed_decides_the_order() -> None:
    assert batches_of(500, 8) == batches_of(500, 8)
    assert batches_of(500, 8) != batches_of(500, 8, seed=1)


def test_batches_come_in_random_order_and_hold_texts_of_one_length() -> None:
    lengths = drawn_lengths(4 * POOL * 8)
    batches = batches_of(len(lengths), 8)
    longest = [max(lengths[place] for place in batch) for batch in batches]
    # Sorted batches would fall from one to the next; half of these rise.
    rises = sum(later > earlier for earlier, later in itertools.pairwise(longest))
    assert 0.4 * len(batches) < rises < 0.6 * len(batches)
    spreads = []
    for batch in batches:
        of_batch = [lengths[place] for place in batch]
        spreads.append(max(of_batch) - min(of_batch))
    # A pool has 400 texts of 195 lengths: eight neighbours are about four tokens apart.
    assert sum(spreads) / len(spreads) < 8


def test_padding_by_hand() -> None:
    """Lengths 1, 9, 2, 8 in twos: as drawn 8 + 6 tokens of padding, by length 1 + 1."""
    lengths = [1, 9, 2, 8]
    assert padding_tokens([[0, 1], [2, 3]], lengths) == 14
    batches = grouped([0, 1, 2, 3], lengths, 2, torch.Generator().manual_seed(0))
    assert batches == [[1, 3], [2, 0]]
    assert padding_tokens(batches, lengths) == 2


def test_what_grouping_saves_is_the_difference_of_two_epochs() -> None:
    lengths = drawn_lengths(1003)
    padding = padding_of_an_epoch(lengths, 8, seed=0)
    order = torch.randperm(1003, generator=torch.Generator().manual_seed(0)).tolist()
    at_random = sum(
        max(map(lengths.__getitem__, order[start : start + 8])) * len(order[start : start + 8])
        - sum(map(lengths.__getitem__, order[start : start + 8]))
        for start in range(0, 1003, 8)
    )
    assert padding["epoch_padding_tokens"] + padding["epoch_padding_saved_tokens"] == at_random
    assert padding["epoch_padding_saved_tokens"] > 0.8 * at_random
    equal = padding_of_an_epoch([7] * 100, 8, seed=0)
    assert equal == {"epoch_padding_tokens": 0, "epoch_padding_saved_tokens": 0}


def test_it_resumes_within_an_epoch() -> None:
    examples = [{"input_ids": [number] * length} for number, length in enumerate(drawn_lengths(61))]

    def resumable(position: dict | None) -> ResumableBatches:
        generator = torch.Generator().manual_seed(3)
        order = GroupedBatches(lengths_tokens(examples), 4, generator)
        loader = DataLoader(
            examples,
            batch_sampler=order,
            generator=generator,
            collate_fn=lambda batch: [example["input_ids"][0] for example in batch],
        )
        return ResumableBatches(loader, [generator], position)

    whole = resumable(None)
    epochs = [list(whole.windows(2)) for _ in range(3)]
    stopped = resumable(None)
    list(stopped.windows(2))
    second = stopped.windows(2)
    made = [next(second) for _ in range(3)]
    assert made == epochs[1][:3]
    resumed = resumable(stopped.position)
    assert [list(resumed.windows(2)), list(resumed.windows(2))] == [epochs[1][3:], epochs[2]]
