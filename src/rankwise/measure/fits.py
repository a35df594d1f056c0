"""The largest micro-batch of a training step that memory of a size holds, by sequence length. Predicted from shapes.

On CUDA a batch fits if the step's storages, served by the caching allocator (allocator.py), stay within the memory less what
the CUDA context and cuBLAS's workspace take; on a CPU if the peak of live storages does. Bytes grow with the batch, by steps of
almost equal size, so a straight line through two predictions finds the next one to make; the answer itself is predicted at
the batch that fits and at the next one, which does not.
"""

import functools
from collections.abc import Callable

from rankwise.measure import account
from rankwise.measure.allocator import OutOfMemory
from rankwise.measure.ledger import track
from rankwise.measure.tracker import Tracker
from rankwise.method import Unsupported

GIB = 2**30
CONTEXT = {"cpu": 0, "cuda": 600 * 2**20}  # bytes; an H100 takes about 500 MiB of context and 32 MiB for cuBLAS
LARGEST = 2**16  # nobody looks further


def fits(request: dict) -> dict:
    """A row for each length and memory size: the largest batch (0: not even one), its peak, and the next one's."""
    try:
        rows = [row for tokens in request["lengths_tokens"] for row in _rows(request, tokens)]
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    return {"rows": rows}


def table(requests: list[dict]) -> str:
    """A Markdown table of the largest batches: a row a method and length, a column a memory size."""
    sizes = requests[0]["memory_gib"]
    lines = [["method", "rank", "length", *(f"{size:g} GiB" for size in sizes)], ["---", *["---:"] * (len(sizes) + 2)]]
    for request in requests:
        name, rank, found = request["cell"]["method"], request["cell"]["rank"] or "", fits(request)
        if "reason" in found:
            lines.append([name, rank, found["reason"]])
        for tokens in request["lengths_tokens"] if "rows" in found else ():
            batches = [row["largest_batch_size"] for row in found["rows"] if row["sequence_length_tokens"] == tokens]
            lines.append([name, rank, tokens, *batches])
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _rows(request: dict, tokens: int) -> list[dict]:
    @functools.cache
    def step(batch: int) -> Tracker:
        shapes = {**request["shapes"], "batch_size": batch, "sequence_length_tokens": tokens}
        return track({**request, "shapes": shapes}, "meta")[0]

    @functools.cache
    def peak(batch: int) -> int:
        return account.ledger(step(batch))["peak_bytes"]

    rows = []
    for gib in request["memory_gib"]:
        room = int(gib * GIB) - CONTEXT[request["device"]]
        batch = largest(peak, lambda size, room=room: _holds(step(size), request["device"], room), room)
        sizes = {"peak_bytes": peak(batch) if batch else 0, "next_peak_bytes": peak(batch + 1)}
        rows.append({"memory_gib": gib, "sequence_length_tokens": tokens, "largest_batch_size": batch, **sizes})
    return rows


def _holds(tracker: Tracker, device: str, room: int) -> bool:
    peak = account.ledger(tracker)["peak_bytes"]
    if peak > room or device == "cpu":
        return peak <= room
    try:
        account.simulate(tracker, room)
    except OutOfMemory:
        return False
    return True


def largest(peak: Callable[[int], int], holds: Callable[[int], bool], room: int) -> int:
    """The largest batch that `holds`, at least 0, where every smaller one holds too; `peak` (bytes) tells where to look."""
    low, high, slow = 0, LARGEST, False  # low holds, high does not
    while high - low > 1:
        guess = (low + high) // 2 if slow else _guess(peak, low, high, room)
        guess = min(max(guess, low + 1), high - 1)
        far, bounded = high - low, high < LARGEST
        low, high = (guess, high) if holds(guess) else (low, guess)
        slow = bounded and not slow and high - low > far // 2  # the line did not help: halve, then try it again
    return low


def _guess(peak: Callable[[int], int], low: int, high: int, room: int) -> int:
    """Where the line through two peaks meets the room, not far beyond what has been tried; less if the room is fragmented."""
    if low < 2:
        return low + 1
    if high < LARGEST and peak(high) <= room:
        return max((low + high) // 2, int(0.94 * high))
    other = low // 2 if high == LARGEST else high
    slope = (peak(low) - peak(other)) / (low - other)
    return min(low + int((room - peak(low)) / slope), 64 * low) if slope > 0 else 4 * low
