"""Logs of all sizes from those of a few: by hand, and against logs that were predicted."""

import functools

import pytest

from helpers.profiling import ledger_request
from rankwise.measure.memory.fits import PredictedSteps
from rankwise.measure.memory.size_law import SizeLaw
from rankwise.measure.memory.tracker import Tracker


def log(*sizes: int, order: tuple[int, ...] = ()) -> Tracker:
    """A log whose storages all appear in the first forward pass, and go in an order."""
    made = Tracker()
    made.sizes, made.kinds = list(sizes), [None] * len(sizes)
    made.phases = [("first_forward", 0)]
    made.events = [*range(1, len(sizes) + 1), *(-serial for serial in order)]
    made.end = len(made.events)
    return made


def test_bytes_that_grow_with_the_batch() -> None:
    """A storage of 100 bytes, one of 8 a sample, one of 6 and 4 a sample."""
    logs = {size: log(100, 8 * size, 6 + 4 * size) for size in (1, 2)}
    law = SizeLaw.of(logs.__getitem__, degree=1, first=1)
    assert law.at(1).sizes == [100, 8, 10]
    assert law.at(50).sizes == [100, 400, 206]
    assert law.at(50).events == logs[1].events


def test_bytes_that_grow_with_the_square_of_the_length() -> None:
    logs = {size: log(3 * size * size + 5 * size + 7, 2 * size) for size in (1, 2, 3)}
    law = SizeLaw.of(logs.__getitem__, degree=2, first=1)
    assert law.at(10).sizes == [357, 20]


def test_there_is_no_law_where_the_order_depends_on_the_size() -> None:
    logs = {1: log(1, 2, order=(1, 2)), 2: log(2, 4, order=(2, 1))}
    assert SizeLaw.of(logs.__getitem__, degree=1, first=1) is None


@pytest.mark.parametrize(
    ("method", "device"),
    [("lora", "cuda"), ("full", "cpu"), pytest.param("galore", "cuda", marks=pytest.mark.slow)],
)
def test_a_law_tells_what_is_predicted_of_a_batch(method: str, device: str) -> None:
    law = SizeLaw.of(lambda size: steps(method, device).log(size, 32), degree=1, first=2)
    check_same(law.at(19), steps(method, device).log(19, 32))


def test_a_law_tells_what_is_predicted_of_a_length() -> None:
    """On a CPU. CUDA pads some rows to 32 tokens, so fits.py takes multiples of 64."""
    law = SizeLaw.of(lambda size: steps("full", "cpu").log(4, 8 * size), degree=2, first=2)
    check_same(law.at(7), steps("full", "cpu").log(4, 56))


@functools.cache
def steps(method: str, device: str) -> PredictedSteps:
    settings = {"memory_gib": [1], "lengths_tokens": [32], "device": device}
    return PredictedSteps(ledger_request("tiny", method, "fits", **settings))


def check_same(told: Tracker, predicted: Tracker) -> None:
    different = [
        pair for pair in zip(told.sizes, predicted.sizes, strict=True) if len(set(pair)) > 1
    ]
    assert different == []
    assert told.end == predicted.end
    assert told.events[: told.end] == predicted.events[: predicted.end]
