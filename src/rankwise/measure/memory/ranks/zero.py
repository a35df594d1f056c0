"""ZeRO in three stages, as DeepSpeed runs them with the defaults of its configuration.

Whatever the dtype of the weights, each process keeps the n-th part of an fp32 copy of all weights
that train, and of the optimizer's state in fp32. With Adam and weights in 16 bits these are K = 12
bytes a parameter (Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1 and figure 1), so that of
Psi parameters N processes hold

    stage 1: 2 Psi + 2 Psi + K Psi / N      optimizer state is shared
    stage 2: 2 Psi + (2 + K) Psi / N        and so are gradients
    stage 3: (2 + 2 + K) Psi / N            and so are weights

in bytes. Beyond these formulae DeepSpeed has, by its code of November 2025:

- One buffer of `reduce_bucket_size` elements for gradients on their way, however small the model
  is. In stages 1 and 2 it is there from the beginning of backward to its end (`setup_buckets`), in
  stage 3 always. Stages 2 and 3 copy each gradient into it and free it; stage 1 at the end.
- At a step the process's gradients are made one flat tensor, and that an fp32 one.
- Stage 3 gathers the parameters of one module at a time. Those of up to
  `param_persistence_threshold` elements are never shared. From the second step on it knows the
  order of modules: it gathers the next `prefetch_bucket_size` elements ahead as long as no more
  than `max_live_parameters` are whole, and keeps whole what is used again within
  `max_reuse_distance` elements.

Source: deepspeed/runtime/zero/stage_1_and_2.py, stage3.py, partitioned_param_coordinator.py and
config.py. Not included: buffers of reduce-scatter within stage 3, and buckets in which stages 1 and
2 send updated weights, which are views.
"""

from rankwise.measure.memory.ranks import notes as noted
from rankwise.measure.memory.ranks.log import SHARED_STATE, Writer

FP32 = 4  # bytes
# Defaults of DeepSpeedZeroConfig, in elements.
REDUCE_BUCKET_SIZE = 500_000_000
PREFETCH_BUCKET_SIZE = 50_000_000
PARAM_PERSISTENCE_THRESHOLD = 100_000
MAX_LIVE_PARAMETERS = 1_000_000_000
MAX_REUSE_DISTANCE = 1_000_000_000


class Zero(Writer):
    """What all stages have in common: shared state in fp32 beside an fp32 copy of the weights."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        trained = [param for param in self.notes.parameters if param.trains]
        self.trained_elements = sum(param.elements for param in trained)
        self.gradients_bytes = self.share(sum(param.size for param in trained))
        # Of the model's dtype; a head that is new for the task stays in fp32.
        self.itemsize = min((param.itemsize for param in trained), default=FP32)
        self._own: int | None = None  # the process's share of the gradients
        self._fp32: int | None = None  # the same in fp32, while the optimizer steps

    @property
    def elements(self) -> int:
        """Of the process's share of what trains."""
        return self.share(self.trained_elements)

    def size(self, serial: int, kind: str) -> int:
        """State is shared and in fp32, as is what an optimizer makes while it steps."""
        size = super().size(serial, kind)
        if serial in self.notes.state:
            return FP32 * self.share(self.notes.state[serial])
        if kind in SHARED_STATE:
            return self.share(size)
        if self.updates and kind == "temporary":
            return self.share(size * FP32 // self.itemsize)
        return size

    def built(self) -> None:
        """The optimizer steps on a copy in fp32 of the process's share."""
        self.log.add(FP32 * self.elements, "optimizer_state")

    def phase_begins(self) -> None:
        """Before a step the process's gradients are flattened, and then copied in fp32."""
        if self.phase.endswith("backward"):
            self.backward_phase_begins()
        if not self.updates or self._own is None:
            return
        self._fp32 = self.log.add(self.gradients_bytes, "temporary")
        if self.itemsize != FP32:
            flat, self._fp32 = self._fp32, self.log.add(FP32 * self.elements, "temporary")
            self.log.free(flat)
        if self.frees_own:
            self.log.free(self._own)
            self._own = None

    def phase_ends(self) -> None:
        """After a step the gradients in fp32 go."""
        if self.phase.endswith("backward"):
            self.backward_phase_ends()
        if self.updates and self._fp32 is not None:
            self.log.free(self._fp32)
            self._fp32 = None

    def drop_gradients(self) -> None:
        """Free whole gradients; what the process keeps of them is its share."""
        self.drop(set(self.gradients.values()))

    def make_own(self) -> None:
        """Make room for the process's share of the gradients."""
        self._own = self.log.add(self.gradients_bytes, "gradients")

    frees_own = True  # whether the share goes once it is copied for the step

    def backward_phase_begins(self) -> None:
        """A backward pass begins."""

    def backward_phase_ends(self) -> None:
        """A backward pass ends."""


class Zero1(Zero):
    """Stage 1: whole weights, and whole gradients until the update's last backward pass ends."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._bucket: int | None = None

    def backward_phase_begins(self) -> None:
        """Make the buffer for gradients on their way."""
        self._bucket = self.log.add(self.itemsize * REDUCE_BUCKET_SIZE, "temporary")

    def backward_phase_ends(self) -> None:
        """Send the gradients and keep the share."""
        if self.is_last_micro_batch:
            self.make_own()
            self.drop_gradients()
        self.free_bucket()

    def free_bucket(self) -> None:
        """Free the buffer for gradients on their way."""
        self.log.free(self._bucket)
        self._bucket = None


class Zero2(Zero1):
    """Stage 2: a gradient is copied into the buffer when it arrives, and freed."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._earlier: int | None = None  # the share of earlier micro-batches' gradients

    def backward_phase_begins(self) -> None:
        """Make the buffer, and room for the share of this micro-batch's gradients."""
        super().backward_phase_begins()
        self._earlier = self._own
        self.make_own()

    def gradient(self, number: int) -> None:
        """Copy a gradient into the buffer."""
        self.drop({self.gradients[number]})

    def backward_phase_ends(self) -> None:
        """Add the share to that of earlier micro-batches."""
        if self._earlier is not None:
            self.log.free(self._own)
            self._own = self._earlier
        self.free_bucket()


class Zero3(Zero):
    """Stage 3: weights are shared as well, and gathered module by module."""

    frees_own = False

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._whole: dict[int, int] = {}  # part -> its gathered parameters
        self._traces = _traces(self.notes.notes)
        self._trace: list[int] = []  # of this micro-batch: parts in the order of their use
        self._next = 0  # place in the trace
        self._elements = [
            sum(self._shared_elements(number) for number in part) for part in self.notes.parts
        ]

    def _shared_elements(self, number: int) -> int:
        elements = self.notes.parameters[number].elements
        return elements if elements > PARAM_PERSISTENCE_THRESHOLD else 0

    def built(self) -> None:
        """Share the weights; make the buffer and room for the share of the gradients."""
        super().built()
        for number, param in enumerate(self.notes.parameters):
            if self._shared_elements(number):
                self.drop({param.serial})
                self.log.add(self.share(param.size), "weights")
        if self.trained_elements:
            self.log.add(self.itemsize * REDUCE_BUCKET_SIZE, "temporary")
            self.make_own()

    def phase_begins(self) -> None:
        """Each micro-batch has an order of modules of its own, which is known after the first."""
        super().phase_begins()
        if self.phase.endswith("forward") or self.phase == "evaluation":
            trace = self._traces.pop(0)
            is_known = self.phase == "forward"
            self._trace, self._next = (trace if is_known else []), 0

    def gradient(self, number: int) -> None:
        """Copy a gradient into the buffer."""
        self.drop({self.gradients[number]})

    def backward_phase_ends(self) -> None:
        """Free whatever is still whole."""
        for part in list(self._whole):
            self._free(part)

    def forward_begins(self, part: int) -> None:
        """Gather the module, and what comes next."""
        self._gather(part)
        self._next += 1
        ahead = 0
        for other in self._trace[self._next :]:
            live = sum(self._elements[whole] for whole in self._whole)
            if ahead >= PREFETCH_BUCKET_SIZE or live + ahead >= MAX_LIVE_PARAMETERS:
                break
            if other not in self._whole:
                ahead += self._elements[other]
                self._gather(other)

    def backward_begins(self, part: int) -> None:
        """Gather the module for its backward pass."""
        self.forward_begins(part)

    def forward_ends(self, part: int) -> None:
        """Free the module's parameters, unless they are used again soon."""
        distance = 0
        for other in self._trace[self._next :]:
            if other == part:
                return
            distance += self._elements[other]
            if distance >= MAX_REUSE_DISTANCE:
                break
        self._free(part)

    def backward_ends(self, part: int) -> None:
        """Free the module's parameters, unless they are used again soon."""
        self.forward_ends(part)

    def _gather(self, part: int) -> None:
        if part in self._whole or not self._elements[part]:
            return
        shared = [number for number in self.notes.parts[part] if self._shared_elements(number)]
        size = sum(self.notes.parameters[number].size for number in shared)
        self._whole[part] = self.log.add(size, "temporary")

    def _free(self, part: int) -> None:
        if part in self._whole:
            self.log.free(self._whole.pop(part))


def _traces(notes: list[noted.Note]) -> list[list[int]]:
    """For each micro-batch (and the evaluation) the parts in the order of their use."""
    traces: list[list[int]] = []
    for note in notes:
        is_phase = note.what == noted.PHASE
        if is_phase and (note.subject.endswith("forward") or note.subject == "evaluation"):
            traces.append([])
        elif note.what in (noted.FORWARD, noted.BACKWARD) and traces:
            traces[-1].append(note.subject)
    return traces


STAGES = {"zero1": Zero1, "zero2": Zero2, "zero3": Zero3}
