"""The log of one of several processes, written from that of a process that trains alone.

Every storage that the process alone has is there again, in full or as this process's share, and
what several processes add (buckets, gathered weights) is put in where it appears and goes. So the
parts add up to the total at every moment, and CUDA's allocator can be simulated as for one process.
"""

from dataclasses import dataclass, field

from rankwise.measure.memory.phases import MICRO_BATCHES
from rankwise.measure.memory.ranks import notes as noted
from rankwise.measure.memory.ranks.notes import Notes
from rankwise.measure.memory.tracker import Tracker

SHARED_STATE = ("optimizer_state", "projection")


@dataclass
class Log:
    """What account.py reads of a tracker; see `Tracker`."""

    events: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    phases: list[tuple[str, int]] = field(default_factory=list)
    end: int = 0
    streams: dict[int, int] = field(default_factory=dict)
    moved: int | None = None

    def kind(self, serial: int) -> str:
        """The kind of a storage."""
        return self.kinds[serial]

    def add(self, size: int, kind: str, stream: int = 0) -> int:
        """Log a new storage of `size` bytes in a stream of the GPU; returns its serial."""
        self.sizes.append(size)
        self.kinds.append(kind)
        self.events.append(len(self.sizes))
        serial = len(self.sizes) - 1
        if stream:
            self.streams[serial] = stream
        return serial

    def free(self, serial: int) -> None:
        """Log the end of a storage."""
        self.events.append(-(serial + 1))


class Writer:
    """Follows the log of a process alone and writes that of one of several.

    A subclass says what differs.

    Args:
        tracker: The log of a process alone.
        notes: Taken beside it.
        request: With `processes`, `device` and optionally `accumulation_steps`.

    Attributes:
        request: Of the ledger.
        count: The number of processes.
        device: That the prediction is for, `cpu` or `cuda`.
        micro_batches: Micro-batches of an update in the log.
        log: What is written.
        phase: The name of the phase now; between phases, that of the last one.
        is_last_micro_batch: Whether the backward phase is the last one of its update.
        backwards: How many backward phases of a name there were.
        gradients: Parameter -> serial of its last gradient in the tracker's log.
    """

    def __init__(self, tracker: Tracker, notes: Notes, request: dict):
        self.tracker = tracker
        self.notes = notes
        self.request = request
        self.count = request["processes"]
        self.device = request["device"]
        self.micro_batches = min(request.get("accumulation_steps", 1), MICRO_BATCHES)
        self.log = Log()
        self.phase = ""
        self.is_last_micro_batch = False
        self.gradients: dict[int, int] = {}  # parameter -> serial in the tracker's log
        self.backwards: dict[str, int] = {}
        # Serial in the tracker's log -> serial in this one, of what is alive in both.
        self._copies: dict[int, int] = {}
        # Serial in the tracker's log -> the storage here that stands for it and for others, and
        # those others: it goes when the last of them goes.
        self._stands_for: dict[int, tuple[int, set[int]]] = {}

        # Serials in the tracker's log of what stays here beyond its end; and those here of what has
        # gone there meanwhile.
        self._staying: set[int] = set()
        self._gone_meanwhile: list[int] = []

    def write(self) -> Log:
        """Return the log of one of the processes."""
        waiting = list(reversed(self.notes.notes))
        for position, signed_serial in enumerate(self.tracker.events[: self.tracker.end]):
            while waiting and waiting[-1].position <= position:
                self._follow(waiting.pop())
            if signed_serial > 0:
                self._appears(signed_serial - 1)
            else:
                self._goes(-signed_serial - 1)
        while waiting:
            self._follow(waiting.pop())
        self.log.end = len(self.log.events)
        return self.log

    def _follow(self, note: noted.Note) -> None:
        match note.what:
            case noted.PHASE:
                self._begin(note.subject)
            case noted.PHASE_ENDS:
                self.phase_ends()
            case noted.BUILT:
                self.built()
            case noted.GRADIENT:
                self.gradients[note.subject] = note.serial
                self.gradient(note.subject)
            case noted.FORWARD:
                self.forward_begins(note.subject)
            case noted.FORWARD_ENDS:
                self.forward_ends(note.subject)
            case noted.BACKWARD:
                self.backward_begins(note.subject)
            case noted.BACKWARD_ENDS:
                self.backward_ends(note.subject)
            case noted.INPUT:
                self.input(note.subject, note.serial)

    def _begin(self, phase: str) -> None:
        self.phase = phase
        self.log.phases.append((phase, len(self.log.events)))
        if phase.endswith("backward"):
            self.backwards[phase] = self.backwards.get(phase, 0) + 1
            self.is_last_micro_batch = self.backwards[phase] == self.micro_batches
        self.phase_begins()

    def _appears(self, serial: int) -> None:
        kind = self.tracker.kind(serial)
        self._copies[serial] = self.log.add(self.size(serial, kind), kind)

    def _goes(self, serial: int) -> None:
        if serial in self._staying:
            self._gone_meanwhile.append(self._copies.pop(serial))
        elif serial in self._copies:
            self.log.free(self._copies.pop(serial))
        elif serial in self._stands_for:
            added, others = self._stands_for.pop(serial)
            others.discard(serial)
            if not others:
                self.log.free(added)

    # For subclasses -----------------------------------------------------------------------------

    def replace(self, serials: list[int], size: int, kind: str) -> None:
        """Put one storage in the place of several, from now until the last of them goes.

        Args:
            serials: In the tracker's log; those that are not alive here are left out.
            size: Bytes of the storage that is added.
            kind: Of that storage.
        """
        alive = {serial for serial in serials if serial in self._copies}
        if not alive:
            return
        self.drop(alive)
        self.stand_for(alive, self.log.add(size, kind))

    def stand_for(self, serials: set[int], added: int) -> None:
        """Let a storage of this log stay until the last of `serials` goes in the tracker's log."""
        for serial in serials:
            self._stands_for[serial] = added, serials

    def drop(self, serials: set[int]) -> None:
        """Let storages go earlier than in the tracker's log."""
        for serial in sorted(serials & self._copies.keys()):
            self.log.free(self._copies.pop(serial))

    def keep(self, serial: int) -> None:
        """Let a storage stay until `release`."""
        if serial in self._copies:
            self._staying.add(serial)

    def release(self) -> None:
        """Free what has gone in the tracker's log since it was kept."""
        for serial in self._gone_meanwhile:
            self.log.free(serial)
        self._staying.clear()
        self._gone_meanwhile.clear()

    def is_alive(self, serial: int) -> bool:
        """Whether a storage of the tracker's log is alive here, as itself."""
        return serial in self._copies

    def share(self, size: int) -> int:
        """Bytes of a share of a storage whose rows are not known."""
        return -(-size // self.count)

    def copy_of_gloo(self, size: int) -> None:
        """On a CPU gloo gathers and sums in a copy of its own; NCCL needs none.

        Source: _allgather_base and reduce_scatter_tensor_coalesced in ProcessGroupGloo.cpp.
        """
        if self.device == "cpu":
            self.log.free(self.log.add(size, "temporary"))

    @property
    def updates(self) -> bool:
        """Whether the optimizer steps."""
        return self.phase.endswith("update")

    # What a subclass changes --------------------------------------------------------------------

    def size(self, serial: int, kind: str) -> int:  # noqa: ARG002
        """Bytes here of a storage of the tracker's log that appears."""
        return self.tracker.sizes[serial]

    def built(self) -> None:
        """The model and its optimizer are built, and the first step comes."""

    def phase_begins(self) -> None:
        """A phase begins."""

    def phase_ends(self) -> None:
        """A phase ends."""

    def gradient(self, number: int) -> None:
        """A parameter has its gradient of this micro-batch."""

    def forward_begins(self, part: int) -> None:
        """A part's forward pass begins; within a backward phase it is computed again."""

    def forward_ends(self, part: int) -> None:
        """A part's forward pass ends."""

    def backward_begins(self, part: int) -> None:
        """The gradient of an output of a part is there; there may be several outputs."""

    def backward_ends(self, part: int) -> None:
        """The gradients of a part's inputs are there."""

    def input(self, part: int, serial: int) -> None:
        """An input of a part, or the gradient of one, is there."""
