"""A log of every storage of a training step: when it appears, when it goes, and its kind.

It works on real tensors and on meta tensors. A dispatch mode sees what every operator returns; a
weak reference tells when the storage behind it is gone. What an operator allocates and frees inside
itself is not seen.

A storage has one kind for its whole life, decided by what becomes of it:

- What a forward pass makes and leaves behind is an activation; so is what backward computes again
  (activation checkpointing).
- What ends in a parameter's `.grad` is a gradient.
- What ends in the optimizer's state is state, from its birth on; bases are `projection`.
- The rest is temporary.
"""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from rankwise.measure.meta_values import assumed_value, reads_meta_value
from rankwise.measure.step import Step
from rankwise.models import storage
from rankwise.optim.parts.released_gradient import is_released

KINDS = (
    "weights", "quantization", "buffers", "inputs", "gradients",
    "optimizer_state", "projection", "activations", "temporary",
)  # fmt: skip


class Tracker(TorchDispatchMode):
    """Logs storages while it is active, and is told of phases as an observer (phases.py).

    A storage's serial is its place in the order of appearance.

    Attributes:
        events: serial + 1 where a storage appears, and the negative of that where it goes.
        sizes: Bytes by serial.
        kinds: Kind by serial; None where it is not known (yet).
        phases: The name of each phase and the number of events before it.
        end: Number of events before the last phase ended.
        streams: The stream of the GPU by serial, of storages outside of the model's own stream.
        moved: Number of events before the model was moved to the GPU, if it is moved part by part;
            None if it is moved as a whole once it is built.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[int] = []
        self.sizes: list[int] = []
        self.kinds: list[str | None] = []
        self.phases: list[tuple[str, int]] = []
        self.end = 0
        self.streams: dict[int, int] = {}
        self.moved: int | None = None
        # Live storages by the id of torch's storage object. The weak reference is kept because its
        # callback, which logs the end of the storage, dies with it.
        self._live: dict[int, tuple[int, weakref.ref]] = {}
        self._is_backward = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Leave out torch's guard against compiling the dispatcher: nothing is compiled here.

        The guard is called with every operator, and takes longer than most of them.
        """
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if reads_meta_value(func, args):
            return assumed_value(args[0])
        output = self.run(func, args, kwargs or {})
        if isinstance(output, Tensor):  # of most operators; a step has tens of thousands
            self._see_output(output)
        else:
            for value in tree_iter(output):
                if isinstance(value, Tensor):
                    self._see_output(value)
        return output

    def run(self, func: OpOverload, args: tuple, kwargs: dict) -> object:
        """Run an operator."""
        return func(*args, **kwargs)

    def _see_output(self, tensor: Tensor) -> None:
        # Gradients are recorded within backward only where a checkpointed layer runs forward again.
        is_recomputed = self._is_backward and torch.is_grad_enabled()
        self.see(tensor, "activations" if is_recomputed else None)

    def see(self, tensor: Tensor, kind: str | None = None) -> None:
        """Log a tensor's storage if it is new, and give it a kind if it has none.

        Args:
            tensor: A sparse COO tensor is logged as its indices and its values.
            kind: One of `KINDS`; None if it is not known yet.
        """
        if is_released(tensor):
            return  # stands in for a gradient, and takes no memory
        if tensor.layout == torch.sparse_coo:
            # A sparse tensor has no storage of its own.
            for part in (tensor._indices(), tensor._values()):
                self.see(part, kind)
            return
        held = tensor.untyped_storage()
        key = id(held)
        if key not in self._live:
            serial = len(self.sizes)
            self._live[key] = serial, weakref.ref(held, lambda _: self._gone(key))
            self.sizes.append(held.nbytes())
            self.kinds.append(None)
            self.events.append(serial + 1)
        serial, _ = self._live[key]
        self._set_kind(serial, kind)

    def _gone(self, key: int) -> None:
        serial, _ = self._live.pop(key)
        self.events.append(-(serial + 1))

    def _set_kind(self, serial: int, kind: str | None) -> None:
        """The first kind that a storage is given stays."""
        if self.kinds[serial] is None:
            self.kinds[serial] = kind

    def serial(self, tensor: Tensor) -> int:
        """The serial of a tensor's storage, which is logged if it is new."""
        self.see(tensor)
        serial, _ = self._live[id(tensor.untyped_storage())]
        return serial

    def kind(self, serial: int) -> str:
        """The kind of a storage."""
        return self.kinds[serial] or "temporary"

    def _claim(self, kind: str, first_serial: int = 0) -> None:
        """Give `kind` to live storages without one, from a serial on."""
        for serial, _ in self._live.values():
            if serial >= first_serial:
                self._set_kind(serial, kind)

    # As an observer of phases -------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything within belongs to the phase."""
        self.phases.append((name, len(self.events)))
        first_serial = len(self.sizes)
        self._is_backward = name.endswith("backward")
        yield
        if name.endswith("forward"):
            self._claim("activations", first_serial)
        self._is_backward = False
        self.end = len(self.events)

    def watch(self, model: nn.Module) -> None:
        """Recognise gradients as they arrive, before an optimizer may free them."""
        for param in model.parameters():
            if param.requires_grad:
                param.register_post_accumulate_grad_hook(self._see_gradient)

    def _see_gradient(self, param: Tensor) -> None:
        # Autograd hands a later micro-batch's gradient to what stands in for an earlier one.
        grad = param.grad.added if is_released(param.grad) else param.grad
        self.see(grad, "gradients")

    def built(self, training_step: Step) -> None:
        """Label the batch, the model and the state; all else that is alive is buffers."""
        gc.collect()  # building a model leaves reference cycles
        for value in training_step.batch.values():
            self.see(value, "inputs")
        for value in storage.constants(training_step.model):
            self.see(value, "quantization")
        for param in training_step.model.parameters():
            self.see(param, "weights")
        self.see_state(training_step)
        self._claim("buffers")

    def see_gradients(self, training_step: Step) -> None:
        """Label the projections that an optimizer gathers in place of gradients."""
        if hasattr(training_step.optimizer, "gradients"):
            for value in training_step.optimizer.gradients():
                self.see(value, "gradients")

    def see_state(self, training_step: Step) -> None:
        """Label what the optimizer keeps."""
        for name, value in state_tensors(training_step):
            self.see(value, "projection" if "basis" in name else "optimizer_state")


def state_tensors(training_step: Step) -> list[tuple[str, Tensor]]:
    """(name, tensor) of an optimizer's state on the model's device.

    Each tensor comes once, although several parameters may share one (a quantization table).
    torch's AdamW counts steps in scalars on the CPU, whatever the model's device; these are left
    out.
    """
    if training_step.optimizer is None:
        return []
    device = next(training_step.model.parameters()).device
    by_id: dict[int, tuple[str, Tensor]] = {}
    for state in training_step.optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.device == device:
                by_id[id(value)] = name, value
    return list(by_id.values())
