"""The log of a step at any batch size, or any length, from logs at a few sizes.

A step runs the same operators in the same order whatever its size, so the storages of two logs
correspond one to one. The bytes of a storage are a polynomial of the size: of degree 1 in the
batch, of degree 2 in the length, because attention has scores of length x length.

Where the order or the number of operators depends on the size, the logs differ in their events, and
there is no law. A law only tells where to look: fits.py predicts the sizes that it answers with.
"""

from collections.abc import Callable
from itertools import pairwise

from rankwise.measure.memory.tracker import Tracker


class SizeLaw:
    """Logs of all sizes.

    Args:
        first: The size of the first log.
        logs: Of sizes that follow each other, alike in their events.

    Attributes:
        first: The size of the first log.
        pattern: The first log, for what all sizes share: events, kinds and phases.
        differences: Newton's forward differences of the bytes by storage, at the first size; one
            list a degree. They are whole numbers, so extrapolated bytes have no rounding errors.
    """

    def __init__(self, first: int, logs: list[Tracker]):
        self.first, self.pattern = first, logs[0]
        self.differences: list[list[int]] = []
        rows = [log.sizes for log in logs]
        while rows:
            self.differences.append(rows[0])
            rows = [
                [right - left for left, right in zip(*pair, strict=True)] for pair in pairwise(rows)
            ]

    @classmethod
    def of(cls, log_at: Callable[[int], Tracker], degree: int, first: int) -> "SizeLaw | None":
        """The law of the logs at the sizes `first` to `first + degree`; None if these differ.

        Args:
            log_at: Predicts a step of a size.
            degree: Of the polynomial.
            first: The smallest size to predict.

        Raises:
            Unsupported: The method cannot train this model; the message is the reason.
        """
        logs = [log_at(size) for size in range(first, first + degree + 1)]
        are_alike = all(_has_same_events(log, logs[0]) for log in logs[1:])
        return cls(first, logs) if are_alike else None

    def holds(self, size: int, log: Tracker) -> bool:
        """Whether a predicted step of a size is as the law says, storage by storage."""
        return _has_same_events(log, self.pattern) and self.at(size).sizes == log.sizes

    def at(self, size: int) -> Tracker:
        """The log of a step of a size."""
        sizes = list(self.differences[0])
        weight = 1  # the binomial coefficient of the size, counted from the first one
        for degree, difference in enumerate(self.differences[1:], start=1):
            weight = weight * (size - self.first - degree + 1) // degree
            sizes = [total + weight * value for total, value in zip(sizes, difference, strict=True)]
        log = Tracker()
        log.sizes = sizes
        log.events, log.kinds = self.pattern.events, self.pattern.kinds
        log.phases, log.end = self.pattern.phases, self.pattern.end
        return log


def _has_same_events(log: Tracker, other: Tracker) -> bool:
    """Whether storages come and go in the same order, in the same phases."""
    return (
        log.events[: log.end] == other.events[: other.end]
        and log.phases == other.phases
        and len(log.sizes) == len(other.sizes)
    )
