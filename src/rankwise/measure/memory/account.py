"""From a tracker's log to a ledger: bytes by kind at the peak of every phase, and through time."""

from collections.abc import Iterator
from typing import NamedTuple

from rankwise.measure.memory.allocator import Allocator
from rankwise.measure.memory.phases import STEPS
from rankwise.measure.memory.tracker import KINDS, Tracker

POINTS = 240  # that a timeline keeps


class Moment(NamedTuple):
    """What is alive after one event."""

    event: int
    phase: str
    total: int  # bytes
    kinds: dict[str, int]  # bytes by kind; shared by all moments of a replay, so copy it to keep it


def replay(tracker: Tracker) -> Iterator[Moment]:
    """Live bytes after every event, in order."""
    total, kinds = 0, dict.fromkeys(KINDS, 0)
    starts = [*tracker.phases, ("", tracker.end + 1)]
    place = 0
    for event, signed in enumerate(tracker.events[: tracker.end]):
        while event >= starts[place + 1][1]:
            place += 1
            yield Moment(
                event, starts[place][0], total, kinds
            )  # what a phase finds is part of its peak
        serial, sign = abs(signed) - 1, 1 if signed > 0 else -1
        size = sign * tracker.sizes[serial]
        total += size
        kinds[tracker.kind(serial)] += size
        yield Moment(event, starts[place][0], total, kinds)


def peaks(tracker: Tracker) -> dict[str, Moment]:
    """The moment of the most bytes in every phase, the first one where several are equal."""
    found: dict[str, Moment] = {}
    for moment in replay(tracker):
        if moment.phase not in found or moment.total > found[moment.phase].total:
            found[moment.phase] = moment._replace(kinds=dict(moment.kinds))
    return found


def ledger(tracker: Tracker) -> dict[str, int | str]:
    """Columns: bytes by kind at the peak of training, which add up to it, and the peak of every phase."""
    found = peaks(tracker)
    top = max((found[name] for name in STEPS if name in found), key=lambda moment: moment.total)
    parts = {f"{kind}_bytes": size for kind, size in top.kinds.items()}
    phases = {f"{name}_peak_bytes": moment.total for name, moment in found.items()}
    return {"peak_phase": top.phase, "peak_bytes": top.total, **parts, **phases}


def timeline(tracker: Tracker) -> list[dict]:
    """Rows of bytes by kind through time, thinned to the highest moment of each of POINTS stretches of events."""
    stretch = max(1, -(-tracker.end // POINTS))
    rows: dict[tuple, Moment] = {}
    for moment in replay(tracker):
        key = (moment.event // stretch, moment.phase)
        if key not in rows or moment.total > rows[key].total:
            rows[key] = moment._replace(kinds=dict(moment.kinds))
    return [
        {"event": m.event, "phase": m.phase, **{f"{k}_bytes": size for k, size in m.kinds.items()}}
        for m in rows.values()
    ]


def allocated(tracker: Tracker, device: str) -> dict[str, int]:
    """What CUDA's allocator makes of the log: rounding and splitting at its peak, what it reserves beyond; nothing on a CPU."""
    if device == "cpu":
        return {}
    found = simulate(tracker)
    peak = ledger(tracker)["peak_bytes"]
    return {
        "rounding_bytes": found.peak_allocated - peak,
        "slack_bytes": found.peak_reserved - found.peak_allocated,
        "peak_allocated_bytes": found.peak_allocated,
        "peak_reserved_bytes": found.peak_reserved,
    }


def simulate(tracker: Tracker, capacity: float = float("inf")) -> Allocator:
    """Run the log of both steps through CUDA's allocator; the model, built elsewhere, is moved there first.

    Raises:
        OutOfMemory: it does not fit into `capacity` bytes.
    """
    start = dict(tracker.phases)["first_forward"]
    allocator, blocks = Allocator(capacity), {}
    for serial in sorted(_alive(tracker.events[:start])):
        blocks[serial] = allocator.take(tracker.sizes[serial])
    for signed in tracker.events[start : dict(tracker.phases)["evaluation"]]:
        serial = abs(signed) - 1
        if signed > 0:
            blocks[serial] = allocator.take(tracker.sizes[serial])
        else:
            allocator.give(blocks.pop(serial))
    return allocator


def _alive(events: list[int]) -> set[int]:
    """Serials that have appeared and not gone."""
    alive: set[int] = set()
    for signed in events:
        alive ^= {abs(signed) - 1}
    return alive
