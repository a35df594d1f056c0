"""Whether the largest batch that `fits` predicts runs, and whether the next one fails.

The allocator is limited to what `fits` leaves it of a memory. Where the predicted batch fails, or
the next one runs, the true boundary is searched for nearby.
"""

import gc
from collections.abc import Callable

import torch

from benchmarks.gpu_check import cases
from benchmarks.gpu_check.parts.matrix import percent
from benchmarks.gpu_check.runner import Check
from rankwise.core.units import CUDA_CONTEXT_BYTES, GIB
from rankwise.measure.memory import peaks, phases
from rankwise.measure.memory.fits import fits

GRIDS = (
    {"models": ["distilbert"], "datasets": ["sst2"], "methods": ["full", "lora", "galore"],
     "ranks": [16], "lengths_tokens": [128], "memory_gib": [6]},
    {"models": ["llama_3_2_1b"], "datasets": ["wikitext2"], "methods": ["lora"], "ranks": [16],
     "lengths_tokens": [1024], "memory_gib": [40], "override": {"lora": {"weights": "bf16"}}},
)  # fmt: skip
REHEARSED_GIB = 12 / 1024
MOST_TRIES = 12  # steps that a search for the true boundary may run


def run(check: Check) -> None:
    """Send a row for each method."""
    for grid in GRIDS[: 1 if check.rehearse else None]:
        profile = cases.on_device(grid, check.device)
        if check.rehearse:
            small = {**cases.rehearsed(grid), "memory_gib": [REHEARSED_GIB]}
            profile = cases.narrowed(small, grid["methods"][:1])
        for request in cases.profiles("fits", profile):
            cell = request["cell"]
            labels = {"model": cell["model"], "method": cell["method"]}
            check.attempt(labels, lambda request=request: _boundary(request))


def _boundary(request: dict) -> dict:
    """Predict the boundary of a request, and find the true one.

    Returns:
        `predicted_batch` and `true_batch`, the largest that runs; or None if the search ended
        before.
    """
    result = fits(request)
    if "reason" in result:
        return {"reason": result["reason"]}
    row = result["rows"][0]
    gib, predicted = row["memory_gib"], row["largest_batch_size"]
    on_gpu = request["device"] == "cuda"
    room = int(gib * GIB) - (CUDA_CONTEXT_BYTES if on_gpu else 0)
    tried: dict[int, bool] = {}

    def runs(size: int) -> bool:
        if size not in tried:
            shapes = {
                **request["shapes"],
                "batch_size": size,
                "sequence_length_tokens": row["sequence_length_tokens"],
            }
            tried[size] = _runs({**request, "shapes": shapes}, room)
        return tried[size]

    if on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
    try:
        true = nearest_boundary(runs, predicted, MOST_TRIES)
    finally:
        if on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "memory_gib": gib,
        "tokens": row["sequence_length_tokens"],
        "predicted_batch": predicted,
        "it_runs": tried.get(predicted, predicted == 0),
        "the_next_one_fails": not tried[predicted + 1] if predicted + 1 in tried else None,
        "true_batch": true,
        **({"error_percent": percent(predicted, true)} if true else {}),
        "tried": tried,
    }


def _runs(request: dict, room: int) -> bool:
    """Whether a step runs within some bytes: on CUDA those that the allocator is limited to."""
    gc.collect()
    if request["device"] == "cpu":
        measured = peaks.cpu(request)
        names = (f"measured_{phase}_peak_bytes" for phase in phases.STEPS)
        return max(measured[name] for name in names if name in measured) <= room
    torch.cuda.empty_cache()
    try:
        peaks.cuda(request)
    except torch.OutOfMemoryError:
        return False
    return True


def nearest_boundary(runs: Callable[[int], bool], guess: int, most_tries: int) -> int | None:
    """Find the largest size that runs, near a guess: in growing steps away from it, then halving.

    Args:
        runs: Whether a size runs; every size below one that runs does, too.
        guess: The size to begin with.
        most_tries: How many sizes may be tried.

    Returns:
        The size; 0 if not even 1 runs; None if the tries did not suffice.
    """
    low = high = guess  # at the end, `low` runs and `high` does not
    step, tries = 1, 1
    upwards = guess == 0 or runs(guess)
    while tries < most_tries:
        if upwards:
            high = low + step
            if not runs(high):
                break
            low = high
        else:
            low = max(high - step, 0)
            if low == 0 or runs(low):
                break
            high = low
        step, tries = 2 * step, tries + 1
    else:
        return None
    while high - low > 1 and tries < most_tries:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
        tries += 1
    return low if high - low == 1 else None
