"""The largest batch and the longest text that fit into a memory."""

import itertools

import hypothesis
import pytest
import torch
from hypothesis import strategies

from helpers.profiling import ledger_request
from rankwise.core.units import CUDA_CONTEXT_BYTES, GIB, MIB
from rankwise.measure.memory import account
from rankwise.measure.memory.fits import PredictedSteps, Sizes, fits, largest
from rankwise.measure.memory.ledger import ledger, track
from rankwise.measure.memory.tracker import Tracker


@pytest.mark.parametrize("wanted", [0, 1, 2, 3, 17, 1000])
@pytest.mark.parametrize("floor", [0, 5000])
@pytest.mark.parametrize("lost", [0.0, 0.07])
def test_the_largest_size_of_a_known_law(wanted: int, floor: int, lost: float) -> None:
    """Peaks that are flat at first, and room of which a share is lost to fragments."""
    tried = set()

    def peak(size: int) -> int:
        return max(floor, 100 + 10 * size)

    def fits_size(size: int) -> bool:
        tried.add(size)
        return size <= wanted

    room = int(peak(wanted) * (1 + lost)) if wanted else 50
    assert largest(peak, fits_size, room) == wanted
    assert len(tried) < 40


@hypothesis.settings(deadline=None)
@hypothesis.given(
    growth=strategies.lists(strategies.integers(0, 50), min_size=1, max_size=60),
    share=strategies.floats(0, 1.2),
    lost=strategies.integers(0, 40),
)
def test_the_largest_size_of_any_law_that_grows(growth: list[int], share: float, lost: int) -> None:
    """Peaks that never shrink, of which a fragmented allocator loses some bytes."""
    peaks = [100 + total for total in itertools.accumulate(growth)]
    room = int(share * peaks[-1])
    fitting = [size for size, peak in enumerate(peaks, start=1) if peak + lost <= room]
    answer = largest(
        lambda size: peaks[size - 1],
        lambda size: peaks[size - 1] + lost <= room,
        room,
        len(peaks),
    )
    assert answer == max(fitting, default=0)


@pytest.mark.parametrize("room", [30, 95, 105, 500, 899, 900, 5000])
def test_a_law_that_misleads_decides_nothing(room: int) -> None:
    """From 10 on a size takes three times the bytes that the law of the small ones says."""

    def bytes_of(size: int) -> int:
        return 10 * size if size < 10 else 30 * size

    def log(size: int) -> Tracker:
        made = Tracker()
        made.sizes, made.kinds, made.events = [bytes_of(size)], [None], [1]
        made.phases, made.end = [("first_forward", 0)], 1
        return made

    fitting = [size for size in range(1, 101) if bytes_of(size) <= room]

    def fits_into(log: Tracker, room: int) -> bool:
        return account.peak_bytes(log) <= room

    assert Sizes(log, [(1, 1), (2, 1)], 100, fits_into).largest(room) == max(fitting)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "device"), [("lora", "cuda"), ("galore", "cuda"), ("full", "cpu")]
)
def test_the_answer_is_that_of_a_search_without_laws(method: str, device: str) -> None:
    """Every size is predicted, one after the other."""
    context = CUDA_CONTEXT_BYTES if device == "cuda" else 0
    gib = (context + 24 * 2**20) / GIB
    request = ledger_request(
        "tiny", method, "fits", memory_gib=[gib], lengths_tokens=[32], device=device
    )
    answer = fits(request)["rows"][0]["largest_batch_size"]
    batch_size = 0
    while _fits(request, batch_size + 1, 24 * 2**20):
        batch_size += 1
    assert answer == batch_size > 1


def _fits(request: dict, batch_size: int, room: int) -> bool:
    """Whether the ledger's peak of a batch, with what the allocator reserves, is in the room."""
    shapes = {**request["shapes"], "batch_size": batch_size, "sequence_length_tokens": 32}
    metrics = ledger({**request, "shapes": shapes, "measured": False})["metrics"]
    return metrics.get("peak_reserved_bytes", metrics["peak_bytes"]) <= room


def test_the_boundary_on_a_cpu_is_that_of_real_tensors() -> None:
    gib = 12 / 1024
    request = ledger_request("tiny", "lora", "fits", memory_gib=[gib], lengths_tokens=[32])
    row = fits(request)["rows"][0]
    batch_size = row["largest_batch_size"]
    for size, should_fit in ((batch_size, True), (batch_size + 1, False)):
        shapes = {**request["shapes"], "batch_size": size}
        tracker, _ = track({**request, "shapes": shapes}, "cpu")
        assert (account.peak_columns(tracker)["peak_bytes"] <= gib * GIB) == should_fit
    assert row["peak_bytes"] <= gib * GIB < row["next_peak_bytes"]


@pytest.mark.slow
def test_the_longest_text() -> None:
    """stories260k has 512 positions: all fit into much memory, the predicted number into less."""
    request = ledger_request(
        "stories260k",
        "full",
        "fits",
        dataset="wikitext2",
        memory_gib=[0.01, 4],
        lengths_tokens=[64],
    )
    few, many = (row["largest_length_tokens"] for row in fits(request)["rows"])
    assert many == 512
    assert 0 < few < 512
    for tokens, should_fit in ((few, True), (few + 64, False)):
        shapes = {**request["shapes"], "batch_size": 1, "sequence_length_tokens": tokens}
        result = ledger({**request, "shapes": shapes, "measured": False})
        assert (result["metrics"]["peak_bytes"] <= 0.01 * GIB) == should_fit


def test_a_loop_that_empties_the_cache_may_fit_where_another_does_not() -> None:
    """12 MiB take a part of 40 cached ones, so 40 more do not fit into 75; emptied, they do."""
    log = Tracker()
    log.phases = [("first_forward", 0), ("forward", 2)]
    log.sizes = [40 * MIB, 12 * MIB, 40 * MIB]
    log.events, log.end = [1, -1, 2, 3], 4
    request = ledger_request("tiny", "full", "fits", device="cuda", memory_gib=[1])
    assert not PredictedSteps(request).fits_into(log, 75 * MIB)
    assert PredictedSteps({**request, "empties_cache": True}).fits_into(log, 75 * MIB)


def test_less_memory_than_the_weights_holds_nothing() -> None:
    """DistilBERT's fp32 weights take 0.25 GiB; of 0.7 GiB, CUDA's context leaves 0.11 GiB."""
    request = ledger_request("distilbert", "full", "fits", memory_gib=[0.7], device="cuda")
    row = fits(request)["rows"][0]
    assert row["largest_batch_size"] == 0
    assert row["peak_bytes"] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_boundary_on_a_gpu_is_the_predicted_one() -> None:
    """With the allocator limited to what `fits` leaves it, 5 % below the boundary a step fits."""
    request = ledger_request(
        "distilbert", "full", "fits", memory_gib=[6], lengths_tokens=[128], device="cuda"
    )
    batch_size = fits(request)["rows"][0]["largest_batch_size"]
    room = 6 * GIB - CUDA_CONTEXT_BYTES
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    try:
        for share, should_fit in ((0.95, True), (1.05, False)):
            sizes = {"batch_size": round(share * batch_size), "sequence_length_tokens": 128}
            shapes = {**request["shapes"], **sizes}
            result = ledger(
                {**request, "shapes": shapes, "measured": True, "measurement": "ledger"}
            )
            assert (result.get("status", "ok") == "ok") == should_fit
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
