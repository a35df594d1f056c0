"""Every storage of a training step: when it appears, when it goes, and what it is. Works on real and on meta tensors.

A dispatch mode sees what every operator returns; a weak reference tells when the storage behind it is gone. What operators
allocate and free inside is not seen. A storage keeps one kind through its life, told by what becomes of it: what forward makes
and leaves is an activation, and so is what backward computes again; what ends in `.grad` a gradient; what ends in the
optimizer's state is state from its birth. The rest is temporary.
"""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from rankwise.measure.step import Step
from rankwise.models import storage

KINDS = (
    "weights", "quantization", "buffers", "inputs", "gradients", "optimizer_state", "projection", "activations", "temporary",
)  # fmt: skip
SCALAR = torch.ops.aten._local_scalar_dense.default


class Tracker(TorchDispatchMode):
    """A log of storages: `events` holds serial + 1 where one appears and its negative where it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[int] = []
        self.sizes: list[int] = []  # bytes, by serial
        self.kinds: list[str | None] = []
        self.phases: list[tuple[str, int]] = []  # name, number of events before it
        self.end = 0  # number of events before the last phase ended
        self._live: dict[int, tuple[int, weakref.ref]] = {}  # id of a storage -> serial
        self._now = ""  # the phase

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is SCALAR and args[0].is_meta:
            return (
                True if args[0].dtype == torch.bool else 1
            )  # a meta tensor has no value: take one, and that all is well
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._appear, out)
        return out

    def _appear(self, tensor: Tensor) -> None:
        again = self._now.endswith("backward") and torch.is_grad_enabled()
        self.see(tensor, "activations" if again else None)

    def see(self, tensor: Tensor, kind: str | None = None) -> None:
        """Log the storage of a tensor if it is new; give it a kind if it has none."""
        if tensor.layout == torch.sparse_coo:
            for part in (tensor._indices(), tensor._values()):
                self.see(part, kind)
            return
        held = tensor.untyped_storage()
        if (key := id(held)) not in self._live:
            serial = len(self.sizes)
            self._live[key] = serial, weakref.ref(held, lambda _: self._gone(key))
            self.sizes.append(held.nbytes())
            self.kinds.append(None)
            self.events.append(serial + 1)
        serial = self._live[key][0]
        self.kinds[serial] = self.kinds[serial] or kind

    def _gone(self, key: int) -> None:
        self.events.append(-self._live.pop(key)[0] - 1)

    # What a run of phases tells it ------------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything within belongs to the phase."""
        self.phases.append((name, len(self.events)))
        born, self._now = len(self.sizes), name
        yield
        if name.endswith("forward"):
            self._claim("activations", born)
        self._now, self.end = "", len(self.events)

    def _claim(self, kind: str, born: int = 0) -> None:
        """What is alive, was born at `born` or later and has no kind yet, is of this kind."""
        for serial, _ in self._live.values():
            if serial >= born:
                self.kinds[serial] = self.kinds[serial] or kind

    def watch(self, model: nn.Module) -> None:
        """Recognise gradients as they arrive, before an optimizer may free them."""
        for param in model.parameters():
            if param.requires_grad:
                param.register_post_accumulate_grad_hook(lambda p: self.see(p.grad, "gradients"))

    def built(self, one: Step) -> None:
        """The model and the batch are there; whatever else is alive belongs to the model."""
        gc.collect()
        for value in one.batch.values():
            self.see(value, "inputs")
        for value in storage.constants(one.model):
            self.see(value, "quantization")
        for param in one.model.parameters():
            self.see(param, "weights")
        self.see_state(one)
        self._claim("buffers")

    def see_gradients(self, one: Step) -> None:
        """Projections that an optimizer gathers in place of gradients."""
        for value in getattr(one.optimizer, "gradients", list)():
            self.see(value, "gradients")

    def see_state(self, one: Step) -> None:
        """What the optimizer keeps."""
        for key, value in state_of(one):
            self.see(value, "projection" if "basis" in key else "optimizer_state")

    def kind(self, serial: int) -> str:
        """What a storage was."""
        return self.kinds[serial] or "temporary"


def state_of(one: Step) -> list[tuple[str, Tensor]]:
    """(name, tensor) of an optimizer's state, each tensor once, those on another device than the model left out."""
    if one.optimizer is None:
        return []
    device = next(one.model.parameters()).device
    found = [
        (key, v)
        for state in one.optimizer.state.values()
        for key, v in state.items()
        if isinstance(v, Tensor)
    ]
    return list(
        {id(value): (key, value) for key, value in found if value.device == device}.values()
    )
