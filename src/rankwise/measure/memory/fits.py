"""The largest micro-batch whose training step fits into a given memory, and the longest text.

Everything comes from shapes. On CUDA a batch fits if the step's storages, served by the caching
allocator (allocator.py), stay within the memory less CUDA_CONTEXT_BYTES. On a CPU it fits if the
peak of live storages does.

A prediction of a large model takes seconds, so few are made: the logs of small sizes tell those of
all others (size_law.py), and the search is among these. The answer is always confirmed. The next
size, which does not fit, is predicted: if each of its storages has the bytes that the law says, the
law holds at both ends of a range that has the answer. Otherwise the answer is predicted, too, and
where both are not as the law says, every size that the search looks at.
"""

import functools
import importlib
from collections.abc import Callable

from rankwise.core.errors import Unsupported
from rankwise.core.units import CUDA_CONTEXT_BYTES, GIB
from rankwise.measure.memory import account
from rankwise.measure.memory.allocator import OutOfMemory
from rankwise.measure.memory.ledger import DATASET_LENGTHS, track
from rankwise.measure.memory.size_law import SizeLaw
from rankwise.measure.memory.tracker import Tracker
from rankwise.measure.memory.workspace import CUBLAS_BYTES
from rankwise.measure.meta_results import MetaResults
from rankwise.methods.parts.base import method_class

CONTEXT_BYTES = {"cpu": 0, "cuda": CUDA_CONTEXT_BYTES}  # taken beside the step's storages
LARGEST_BATCH = 2**16  # the search goes no further
LENGTH_STEP = 64  # tokens: lengths are searched in multiples of it
FRAGMENTED = 0.94  # next guess, as a share of a batch that fits by its peak but not when simulated


def fits(request: dict) -> dict:
    """Find the limits of a request for each of its lengths and memory sizes.

    With `lengths` the batches are those of a dataset, each with its longest text.

    Returns:
        A result with `rows`: the largest batch size (0: not even one), its peak and that of the
        next batch, and `largest_length_tokens`, the longest text of which one fits (a multiple of
        LENGTH_STEP, at most the model's positions); or status `unsupported` with the reason.
    """
    if "lengths" in request:
        request = importlib.import_module(DATASET_LENGTHS).longest(request)
    steps = PredictedSteps(request)
    rows = []
    try:
        for tokens in request["lengths_tokens"]:
            rows += [_row(steps, tokens, gib) for gib in request["memory_gib"]]
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    return {"rows": rows}


class PredictedSteps:
    """Predicted steps of a request at other batch sizes and lengths, each predicted once.

    Attributes:
        request: A profile's request.
        device: `cpu` or `cuda`.
        positions: The longest text of the model, without the method's virtual tokens.
    """

    def __init__(self, request: dict):
        self.request, self.device = request, request["device"]
        entry = request["method"]
        virtual_tokens = entry["options"]["rank"] if method_class(entry["module"]).PROMPT else 0
        self.positions = request["model"]["max_positions_tokens"] - virtual_tokens
        # Cached per instance; functools.cache on the methods would keep every instance alive.
        self.log = functools.cache(self._log)
        self._results = MetaResults()  # steps of all sizes have the same weights to update

    def _log(self, batch_size: int, tokens: int) -> Tracker:
        shapes = {
            **self.request["shapes"],
            "batch_size": batch_size,
            "sequence_length_tokens": tokens,
        }
        request = {**self.request, "shapes": shapes}
        tracker, _ = track(request, "meta", evaluates=False, results=self._results)
        return tracker

    def batches(self, tokens: int) -> "Sizes":
        """Steps by the batch size, with texts of a length."""
        laws = [(2, 1)]  # one sample alone may be laid out as no others are
        return Sizes(lambda size: self.log(size, tokens), laws, LARGEST_BATCH, self.fits_into)

    def lengths(self, tokens: int) -> "Sizes":
        """Steps on one text, by its length in multiples of LENGTH_STEP.

        Args:
            tokens: A length at which one text is predicted anyway.
        """
        most = self.positions // LENGTH_STEP
        first = tokens // LENGTH_STEP
        if tokens % LENGTH_STEP or first + 2 > most:
            first = 1
        laws = [(first, 1), (first, 2)]  # of degree 2 where attention keeps its scores
        return Sizes(
            lambda size: self.log(1, LENGTH_STEP * size),
            laws,
            most,
            self.fits_into,
            may_be_most=True,
        )

    def fits_into(self, log: Tracker, room: int) -> bool:
        """Whether a step fits into a given memory.

        Args:
            log: Of the step.
            room: Bytes for the step's storages; on CUDA without its context.
        """
        if account.peak_bytes(log) > room:
            return False
        if self.device == "cpu":
            return True
        workspace = CUBLAS_BYTES[self.request.get("gpu", "ampere")]
        empties_cache = self.request.get("empties_cache", False)
        try:
            account.simulate(log, room, workspace_bytes=workspace, empties_cache=empties_cache)
        except OutOfMemory:
            return False
        return True


class Sizes:
    """Steps of all sizes along one axis: by batch size or by length.

    Args:
        log_at: Predicts the log of a step of a size.
        laws: The first size and the degree of each law to try, in this order.
        most: The largest size to consider.
        fits_into: Whether a step with a log fits into a number of bytes.
        may_be_most: Whether the largest size may well fit. It is then predicted first, and laws are
            confirmed at it.
    """

    def __init__(
        self,
        log_at: Callable[[int], Tracker],
        laws: list[tuple[int, int]],
        most: int,
        fits_into: Callable[[Tracker, int], bool],
        *,
        may_be_most: bool = False,
    ):
        self._log_at, self._most, self._fits_into = log_at, most, fits_into
        self._possible = [(first, degree) for first, degree in laws if first + degree <= most]
        self._may_be_most = may_be_most
        # A law that holds from its first size to the second value, which was predicted.
        self._confirmed: tuple[SizeLaw, int] | None = None

    def largest(self, room: int) -> int:
        """The largest size that fits, confirmed by predictions.

        Args:
            room: Bytes for the step's storages; on CUDA without its context.

        Returns:
            A size from 0 (nothing fits) to the largest one.

        Raises:
            Unsupported: The method cannot train this model; the message is the reason.
        """
        if self._may_be_most and self._fits_into(self._log_at(self._most), room):
            return self._most
        for first, degree in self._possible:
            law = SizeLaw.of(self._log_at, degree, first)
            if law is not None:
                size = self._search(law.at, room)
                if self._is_confirmed(law, size, room):
                    return size
        return self._search(self._log_at, room)

    def peak(self, size: int) -> int:
        """Bytes of live storages at the peak of a step: predicted, or by a confirmed law."""
        if self._confirmed:
            law, last = self._confirmed
            if law.first <= size <= last:
                return account.peak_bytes(law.at(size))
        return account.peak_bytes(self._log_at(size))

    def _search(self, log_at: Callable[[int], Tracker], room: int) -> int:
        log = functools.cache(log_at)
        return largest(
            lambda size: account.peak_bytes(log(size)),
            lambda size: self._fits_into(log(size), room),
            room,
            self._most,
        )

    def _is_confirmed(self, law: SizeLaw, size: int, room: int) -> bool:
        """Whether predictions say that a size is the largest that fits.

        Args:
            law: That says so.
            size: What it says.
            room: Bytes that are there.
        """
        last = self._most if self._may_be_most else min(size + 1, self._most)
        if size >= law.first and law.holds(last, self._log_at(last)):
            self._confirmed = law, last
            return True
        if size and not self._fits_into(self._log_at(size), room):
            return False
        if size == self._most:
            return True
        return not self._fits_into(self._log_at(size + 1), room)


def _row(steps: PredictedSteps, tokens: int, gib: float) -> dict:
    room = int(gib * GIB) - CONTEXT_BYTES[steps.device]
    batches = steps.batches(tokens)
    batch_size = batches.largest(room)
    return {
        "memory_gib": gib,
        "sequence_length_tokens": tokens,
        "largest_batch_size": batch_size,
        "largest_length_tokens": LENGTH_STEP * steps.lengths(tokens).largest(room),
        "peak_bytes": batches.peak(batch_size) if batch_size else 0,
        "next_peak_bytes": batches.peak(batch_size + 1),
    }


def largest(
    peak: Callable[[int], int],
    fits_size: Callable[[int], bool],
    room: int,
    most: int = LARGEST_BATCH,
) -> int:
    """Find the largest size that fits, given that every smaller one fits too.

    Args:
        peak: Bytes at the peak of a size; tells where to look.
        fits_size: Whether a size fits; decides.
        room: Bytes that are there.
        most: The largest size to consider.

    Returns:
        A size from 0 (nothing fits) to `most`.
    """
    low, high = 0, most + 1  # `low` fits, `high` does not
    halve = False  # whether the next guess is in the middle, not on the line
    while high - low > 1:
        width = high - low
        was_bounded = high <= most  # a size that does not fit has been found
        if halve:
            guess = (low + high) // 2
        else:
            guess = _guess(peak, low, high if was_bounded else None, room)
        guess = min(max(guess, low + 1), high - 1)
        if fits_size(guess):
            low = guess
        else:
            high = guess
        # Where the line did not even halve the range, the next guess does; then the line again.
        halve = was_bounded and not halve and high - low > width // 2
    return low


def _guess(peak: Callable[[int], int], low: int, high: int | None, room: int) -> int:
    """Guess the largest size that fits, from two known peaks.

    Args:
        peak: Bytes at the peak of a size.
        low: A size that fits.
        high: A size that does not fit; None where none is known.
        room: Bytes that are there.
    """
    if low < 2:
        return low + 1  # no two peaks yet
    if high and peak(high) <= room:
        # Its live bytes fit, but the allocator's fragments do not: the line would lead back to it.
        return max((low + high) // 2, int(FRAGMENTED * high))
    other = high or low // 2
    slope = (peak(low) - peak(other)) / (low - other)  # bytes per sample
    if slope <= 0:
        return 4 * low  # small peaks may be flat, where another part of the step dominates
    where_line_meets_room = low + int((room - peak(low)) / slope)
    return min(where_line_meets_room, 64 * low)  # not far beyond what has been tried


def table(requests: list[dict], say: Callable[[str], None]) -> str:
    """Write the limits of several requests as a Markdown table.

    Args:
        requests: All with the same memory sizes.
        say: Called with each method's name before its turn, for a large model takes minutes.

    Returns:
        A row for each method and length, two columns for each memory size.
    """
    sizes = requests[0]["memory_gib"]
    heads = [f"{what} in {size:g} GiB" for what in ("batch", "longest") for size in sizes]
    lines = [["method", "rank", "length", *heads], ["---", *["---:"] * (2 * len(sizes) + 2)]]
    for request in requests:
        say(request["cell"]["method"])
        lines += _table_lines(request)
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _table_lines(request: dict) -> list[list]:
    """The lines of one method: one for each length, or one with the reason."""
    name, rank = request["cell"]["method"], request["cell"]["rank"] or ""
    result = fits(request)
    if "reason" in result:
        return [[name, rank, result["reason"]]]
    lines = []
    for tokens in dict.fromkeys(row["sequence_length_tokens"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["sequence_length_tokens"] == tokens]
        batches = [row["largest_batch_size"] for row in rows]
        lengths = [row["largest_length_tokens"] for row in rows]
        lines.append([name, rank, tokens, *batches, *lengths])
    return lines
