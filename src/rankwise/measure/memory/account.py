"""From a tracker's log to numbers: bytes by kind at the peak of every phase, and through time."""

from collections.abc import Iterator
from typing import NamedTuple

from rankwise.measure.memory.allocator import Allocator, Block
from rankwise.measure.memory.phases import STEPS
from rankwise.measure.memory.tracker import KINDS, Tracker
from rankwise.measure.memory.workspace import CUBLAS_BYTES

POINTS = 240  # stretches of events in a timeline, each of which keeps its highest moment


class Moment(NamedTuple):
    """What is alive after one event.

    Attributes:
        event: Number of the event in the log.
        phase: The phase in which it happened.
        total: Live bytes.
        kinds: Live bytes by kind. All moments of a replay share this dict; copy it to keep it.
    """

    event: int
    phase: str
    total: int
    kinds: dict[str, int]

    def kept(self) -> "Moment":
        """A copy that later events do not change."""
        return self._replace(kinds=dict(self.kinds))


def replay(tracker: Tracker) -> Iterator[Moment]:
    """Yield what is alive after every event, in order.

    A phase starts with a moment of its own before its first event: what is alive when a phase
    begins is part of its peak.
    """
    total, kinds = 0, dict.fromkeys(KINDS, 0)
    starts = [*tracker.phases, ("", tracker.end + 1)]
    position = 0  # of the current phase in `starts`
    for event, signed_serial in enumerate(tracker.events[: tracker.end]):
        while event >= starts[position + 1][1]:
            position += 1
            yield Moment(event, starts[position][0], total, kinds)
        serial, appears = _decode(signed_serial)
        change = tracker.sizes[serial] if appears else -tracker.sizes[serial]
        total += change
        kinds[tracker.kind(serial)] += change
        yield Moment(event, starts[position][0], total, kinds)


def _decode(signed_serial: int) -> tuple[int, bool]:
    """(serial, whether the storage appears): the log holds serial + 1, negated where one goes."""
    return abs(signed_serial) - 1, signed_serial > 0


def peaks(tracker: Tracker) -> dict[str, Moment]:
    """The moment with the most live bytes in every phase; the first one where several are equal."""
    peak_by_phase: dict[str, Moment] = {}
    for moment in replay(tracker):
        highest = peak_by_phase.get(moment.phase)
        if highest is None or moment.total > highest.total:
            peak_by_phase[moment.phase] = moment.kept()
    return peak_by_phase


def peak_columns(tracker: Tracker) -> dict[str, int | str]:
    """Columns of a ledger from live storages.

    Returns:
        `peak_phase` and `peak_bytes` of the two training steps, the bytes of every kind at that
        moment, which add up to the peak, and the peak of every phase.
    """
    peak_by_phase = peaks(tracker)
    steps = [peak_by_phase[phase] for phase in STEPS if phase in peak_by_phase]
    top = max(steps, key=lambda moment: moment.total)
    columns = {"peak_phase": top.phase, "peak_bytes": top.total}
    for kind, size in top.kinds.items():
        columns[f"{kind}_bytes"] = size
    for phase, moment in peak_by_phase.items():
        columns[f"{phase}_peak_bytes"] = moment.total
    return columns


def peak_bytes(tracker: Tracker) -> int:
    """`peak_bytes` of `peak_columns` alone, in a small part of its time."""
    start, end = _steps_of(tracker)
    total = highest = sum(tracker.sizes[serial] for serial in _alive(tracker.events[:start]))
    for signed_serial in tracker.events[start:end]:
        if signed_serial > 0:
            total += tracker.sizes[signed_serial - 1]
            highest = max(highest, total)
        else:
            total -= tracker.sizes[-signed_serial - 1]
    return highest


def _steps_of(tracker: Tracker) -> tuple[int, int]:
    """The numbers of the first event of both training steps, and of the first one behind them."""
    start_of = dict(reversed(tracker.phases))  # the first start of a phase that comes again
    return start_of["first_forward"], start_of.get("evaluation", tracker.end)


def timeline(tracker: Tracker) -> list[dict]:
    """Rows of bytes by kind through time.

    The log is thinned: of each of POINTS stretches of events only the highest moment is kept, and
    where a phase ends within a stretch, the highest of both phases.
    """
    stretch = max(1, -(-tracker.end // POINTS))  # events, rounded up
    highest: dict[tuple[int, str], Moment] = {}
    for moment in replay(tracker):
        key = (moment.event // stretch, moment.phase)
        if key not in highest or moment.total > highest[key].total:
            highest[key] = moment.kept()
    return [_timeline_row(moment) for moment in highest.values()]


def _timeline_row(moment: Moment) -> dict[str, int | str]:
    sizes = {f"{kind}_bytes": size for kind, size in moment.kinds.items()}
    return {"event": moment.event, "phase": moment.phase, **sizes}


def allocator_columns(tracker: Tracker, request: dict) -> dict[str, int]:
    """Columns of a ledger from CUDA's caching allocator; none on a CPU, which has none.

    Args:
        tracker: The log of all phases.
        request: Of the ledger or the prediction: its `device`, `gpu`, `empties_cache` and
            `generated_tokens`.

    Returns:
        `cublas_workspace_bytes`: what cuBLAS holds from the first step on (workspace.py).
        `rounding_bytes`: what rounding and splitting add to the peak of live storages.
        `slack_bytes`: what is reserved beyond the peak of allocated blocks.
        `peak_allocated_bytes` and `peak_reserved_bytes`, as torch.cuda reports them.
        `evaluation_reserved_bytes`: where an evaluation generates, the peak of reserved memory with
            it. It follows the second step, whose segments are still cached.
    """
    if request["device"] == "cpu":
        return {}
    workspace = CUBLAS_BYTES[request.get("gpu", "ampere")]
    empties_cache = request.get("empties_cache", False)
    loop = {"workspace_bytes": workspace, "empties_cache": empties_cache}
    allocator = simulate(tracker, **loop)
    peak = peak_columns(tracker)["peak_bytes"]
    held = workspace * len(_first_products(tracker))
    columns = {
        "cublas_workspace_bytes": held,
        "rounding_bytes": allocator.peak_allocated - peak - held,
        "slack_bytes": allocator.peak_reserved - allocator.peak_allocated,
        "peak_allocated_bytes": allocator.peak_allocated,
        "peak_reserved_bytes": allocator.peak_reserved,
    }
    if request.get("generated_tokens") and "evaluation" in dict(tracker.phases):
        whole = simulate(tracker, evaluates=True, **loop)
        columns["evaluation_reserved_bytes"] = whole.peak_reserved
    return columns


def simulate(
    tracker: Tracker,
    capacity: float = float("inf"),
    *,
    workspace_bytes: int = CUBLAS_BYTES["ampere"],
    empties_cache: bool = False,
    evaluates: bool = False,
) -> Allocator:
    """Run the log of both training steps through CUDA's allocator.

    Training builds the model on the CPU and moves it to the GPU. So everything that is alive before
    the first step is allocated first, in the order in which it was made, and nothing of what came
    and went while the model was built. A log with `moved` has what comes and goes from there on.

    cuBLAS asks the same allocator for its workspace, at the first product of each thread.

    Args:
        tracker: The log.
        capacity: Bytes that the allocator may reserve.
        workspace_bytes: Of cuBLAS in one thread.
        empties_cache: Return wholly free segments to the driver between both steps.
        evaluates: Go on with the evaluation, if the log has one.

    Returns:
        The allocator after the last event; its peaks are in bytes.

    Raises:
        OutOfMemory: The log does not fit into the capacity.
    """
    start, end = _steps_of(tracker)
    if evaluates:
        end = tracker.end
    moved = start if tracker.moved is None else tracker.moved
    first_products = _first_products(tracker)
    second_step = dict(reversed(tracker.phases)).get("forward") if empties_cache else None

    allocator = Allocator(capacity)
    blocks: dict[int, Block | None] = {}  # by serial
    for serial in sorted(_alive(tracker.events[:moved])):
        blocks[serial] = allocator.allocate(tracker.sizes[serial])
    for event in range(moved, end):
        if event == start:
            allocator.peak_allocated = allocator.allocated  # as reset_peak_memory_stats does
        if event in first_products:
            allocator.allocate(workspace_bytes)
        if event == second_step:
            allocator.release_free_segments()
        serial, appears = _decode(tracker.events[event])
        if appears:
            stream = tracker.streams.get(serial, 0)
            blocks[serial] = allocator.allocate(tracker.sizes[serial], stream)
        else:
            allocator.free(blocks.pop(serial))
    return allocator


def _first_products(tracker: Tracker) -> set[int]:
    """Events before which a thread gets its workspace: the first one of each kind of pass.

    torch runs backward passes on the GPU in a thread of their own.
    """
    start_of = dict(reversed(tracker.phases))
    passes = ("first_forward", "first_backward")
    return {start_of[name] for name in passes if name in start_of}


def _alive(events: list[int]) -> set[int]:
    """Serials of the storages that have appeared and not gone."""
    alive: set[int] = set()
    for signed_serial in events:
        serial, appears = _decode(signed_serial)
        if appears:
            alive.add(serial)
        else:
            alive.remove(serial)
    return alive
