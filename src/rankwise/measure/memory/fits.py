"""The largest micro-batch of a training step that memory of a size holds, by length, and the longest text. From shapes.

On CUDA a batch fits if the step's storages, served by the caching allocator (allocator.py), stay within the memory less what
the CUDA context and cuBLAS's workspace take; on a CPU if the peak of live storages does. Bytes grow with the batch, by steps of
almost equal size, so a straight line through two predictions finds the next one to make; the answer itself is predicted at
the batch that fits and at the next one, which does not.
"""

import functools
from collections.abc import Callable

from rankwise.core.errors import Unsupported
from rankwise.measure.memory import account
from rankwise.measure.memory.allocator import OutOfMemory
from rankwise.measure.memory.ledger import track
from rankwise.measure.memory.tracker import Tracker
from rankwise.methods.parts.base import method_class

GIB = 2**30
CONTEXT = {
    "cpu": 0,
    "cuda": 600 * 2**20,
}  # bytes; an H100 takes about 500 MiB of context and 32 MiB for cuBLAS
LARGEST, STEP = 2**16, 64  # nobody looks further, or closer at lengths


def fits(request: dict) -> dict:
    """A row for each length and memory size: the largest batch (0: not even one), its peak and the next one's.

    `largest_length_tokens` is the longest text, in steps of STEP tokens, of which one fits; at most the model's positions.
    """
    steps = Steps(request)
    try:
        return {
            "rows": [
                _row(steps, tokens, gib)
                for tokens in request["lengths_tokens"]
                for gib in request["memory_gib"]
            ]
        }
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}


class Steps:
    """Predicted steps of a request at other batch sizes and lengths, each made once."""

    def __init__(self, request: dict):
        self.request, self.device = request, request["device"]
        entry = request["method"]
        virtual = entry["options"]["rank"] if method_class(entry["module"]).PROMPT else 0
        self.positions = request["model"]["max_positions_tokens"] - virtual
        self.peak = functools.cache(
            lambda batch, tokens: account.ledger(self.log(batch, tokens))["peak_bytes"]
        )
        self.log = functools.cache(self._log)

    def _log(self, batch: int, tokens: int) -> Tracker:
        shapes = {**self.request["shapes"], "batch_size": batch, "sequence_length_tokens": tokens}
        return track({**self.request, "shapes": shapes}, "meta")[0]

    def holds(self, batch: int, tokens: int, room: int) -> bool:
        """Whether `room` bytes are enough."""
        if self.peak(batch, tokens) > room or self.device == "cpu":
            return self.peak(batch, tokens) <= room
        try:
            account.simulate(self.log(batch, tokens), room)
        except OutOfMemory:
            return False
        return True


def _row(steps: Steps, tokens: int, gib: float) -> dict:
    room = int(gib * GIB) - CONTEXT[steps.device]
    batch = largest(
        lambda size: steps.peak(size, tokens), lambda size: steps.holds(size, tokens, room), room
    )
    longest = largest(
        lambda size: steps.peak(1, STEP * size),
        lambda size: steps.holds(1, STEP * size, room),
        room,
        steps.positions // STEP,
    )
    return {
        "memory_gib": gib,
        "sequence_length_tokens": tokens,
        "largest_batch_size": batch,
        "largest_length_tokens": STEP * longest,
        "peak_bytes": steps.peak(batch, tokens) if batch else 0,
        "next_peak_bytes": steps.peak(batch + 1, tokens),
    }


def table(requests: list[dict], say: Callable[[str], None]) -> str:
    """A Markdown table of the largest batches and lengths: a row a method and length, two columns a memory size.

    `say` is told each method before its turn, for a large model takes minutes.
    """
    sizes = requests[0]["memory_gib"]
    heads = [f"{what} in {size:g} GiB" for what in ("batch", "longest") for size in sizes]
    lines = [["method", "rank", "length", *heads], ["---", *["---:"] * (2 * len(sizes) + 2)]]
    for request in requests:
        name, rank = request["cell"]["method"], request["cell"]["rank"] or ""
        say(name)
        found = fits(request)
        if "reason" in found:
            lines.append([name, rank, found["reason"]])
        for tokens in request["lengths_tokens"] if "rows" in found else ():
            rows = [row for row in found["rows"] if row["sequence_length_tokens"] == tokens]
            numbers = [
                row[key] for key in ("largest_batch_size", "largest_length_tokens") for row in rows
            ]
            lines.append([name, rank, tokens, *numbers])
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def largest(
    peak: Callable[[int], int], holds: Callable[[int], bool], room: int, most: int = LARGEST
) -> int:
    """The largest size from 0 to `most` that `holds`, where every smaller one does too; `peak` (bytes) tells where to look."""
    low, high, slow = 0, most + 1, False  # low holds, high does not
    while high - low > 1:
        guess = (
            (low + high) // 2 if slow else _guess(peak, low, high if high <= most else None, room)
        )
        guess = min(max(guess, low + 1), high - 1)
        far, bounded = high - low, high <= most
        low, high = (guess, high) if holds(guess) else (low, guess)
        slow = (
            bounded and not slow and high - low > far // 2
        )  # the line did not help: halve, then try it again
    return low


def _guess(peak: Callable[[int], int], low: int, high: int | None, room: int) -> int:
    """Where the line through two peaks meets the room, not far beyond what has been tried; less if the room is fragmented."""
    if low < 2:
        return low + 1
    if high and peak(high) <= room:
        return max((low + high) // 2, int(0.94 * high))
    other = high or low // 2
    slope = (peak(low) - peak(other)) / (low - other)
    return min(low + int((room - peak(low)) / slope), 64 * low) if slope > 0 else 4 * low
