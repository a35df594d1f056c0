"""When the parts of a model compute: notes beside a tracker's log of one process.

Processes that hold shares of a model gather a part of it before the part computes. So whoever
writes the log of one of them needs to know when each part's forward and backward pass begin and
end. torch's FSDP2 learns this in the same way: from hooks on modules, from hooks on the tensors
that they return, and from an identity in front of their inputs.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from rankwise.measure.memory.tracker import Tracker, state_tensors
from rankwise.measure.step import Step
from rankwise.optim.parts.released_gradient import is_released
from rankwise.optim.parts.waiting import trains

PHASE, PHASE_ENDS, BUILT, GRADIENT = "phase", "phase ends", "built", "gradient"
FORWARD, FORWARD_ENDS = "forward", "forward ends"
BACKWARD, BACKWARD_ENDS = "backward", "backward ends"
INPUT = "input"


class Note(NamedTuple):
    """Something that happened between two events of the log.

    Attributes:
        position: Number of events before it.
        what: One of the constants of this module.
        subject: The name of a phase, or the number of a part or of a parameter.
        serial: Of the storage that is the gradient of a parameter, an input of a part, or the
            gradient of one.
    """

    position: int
    what: str
    subject: str | int | None = None
    serial: int | None = None


class Part(NamedTuple):
    """A part of a model that is gathered as one.

    Attributes:
        module: Its forward pass is when the part computes.
        params: The parameters that are the part's, each of one part only.
    """

    module: nn.Module
    params: list[nn.Parameter]


@dataclass(frozen=True)
class Parameter:
    """What is known of a parameter.

    Attributes:
        shape: Its shape; that of the codes, if it is quantized.
        itemsize: Bytes of an element.
        trains: Whether it is trained.
        serial: Of its storage in the log.
    """

    shape: tuple[int, ...]
    itemsize: int
    trains: bool
    serial: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements * self.itemsize

    def share(self, count: int) -> int:
        """Bytes of the first process's rows, of `count` processes; it has the most.

        FSDP2 cuts the first dimension into `count` pieces of equal length, of which the last ones
        may be padded or empty (torch.distributed.fsdp, FSDPParam.padded_sharded_param_size).
        """
        rows = self.shape[0] if self.shape else 1
        return -(-rows // count) * (self.size // max(rows, 1))


class _Passed(torch.autograd.Function):
    """An identity of tensors whose backward is where the part behind it has ended its own."""

    @staticmethod
    def forward(ctx, ended, *tensors):
        ctx.ended = ended
        return tensors

    @staticmethod
    def backward(ctx, *gradients):
        ctx.ended(gradients)
        return None, *gradients


class Notes:
    """An observer (phases.py) that passes everything on to a tracker and takes notes.

    Args:
        tracker: Of the step.
        parts_of: Gives the parts of an adapted model.

    Attributes:
        notes: In the order of what happened.
        parameters: Every parameter of the model once.
        parts: For each part the numbers of its parameters.
        state: Serial -> elements, of tensors of the optimizer's state that hold fractions.
    """

    def __init__(self, tracker: Tracker, parts_of: Callable[[nn.Module], list[Part]]):
        self.tracker = tracker
        self.notes: list[Note] = []
        self.parameters: list[Parameter] = []
        self.parts: list[list[int]] = []
        self.state: dict[int, int] = {}
        self._parts_of = parts_of
        self._parts: list[Part] = []
        self._phase = ""

    def _note(self, what: str, subject: str | int | None = None, serial: int | None = None) -> None:
        self.notes.append(Note(len(self.tracker.events), what, subject, serial))

    # As an observer -----------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything within belongs to the phase."""
        self._phase = name
        with self.tracker.phase(name):
            self._note(PHASE, name)
            yield
            self._note(PHASE_ENDS, name)
        self._phase = ""

    def watch(self, model: nn.Module) -> None:
        """Put hooks on the parts of the adapted model."""
        self.tracker.watch(model)
        self._parts = self._parts_of(model)
        for number, part in enumerate(self._parts):
            self._watch_part(number, part.module)

    def _watch_part(self, number: int, module: nn.Module) -> None:
        def before(_, arguments, keywords):
            self._note(FORWARD, number)
            if self._phase.endswith("backward") or not torch.is_grad_enabled():
                return None  # computed again, or never differentiated
            self._note_inputs(number, _differentiated((arguments, keywords)))

            def ended(gradients: tuple[Tensor, ...]) -> None:
                self._note_inputs(number, gradients)
                self._note(BACKWARD_ENDS, number)

            return _mark((arguments, keywords), ended)

        def after(_, __, output):
            self._note(FORWARD_ENDS, number)
            if self._phase.endswith("backward"):
                return
            for tensor in tree_leaves(output):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda _: self._note(BACKWARD, number))

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after)

    def _note_inputs(self, number: int, tensors: Iterable[Tensor | None]) -> None:
        for tensor in tensors:
            if tensor is not None:
                self._note(INPUT, number, self.tracker.serial(tensor))

    def built(self, training_step: Step) -> None:
        """Number the parameters."""
        self.tracker.built(training_step)
        numbers: dict[int, int] = {}
        for number, param in enumerate(training_step.model.parameters()):
            numbers[id(param)] = number
            serial = self.tracker.serial(param)
            facts = Parameter(tuple(param.shape), param.element_size(), trains(param), serial)
            self.parameters.append(facts)
            if param.requires_grad:
                param.register_post_accumulate_grad_hook(self._see_gradient(number))
        self.parts = [[numbers[id(param)] for param in part.params] for part in self._parts]
        self._note(BUILT)

    def _see_gradient(self, number: int):
        def see(param: Tensor) -> None:
            grad = param.grad
            if grad is not None and not is_released(grad) and grad.layout == torch.strided:
                self._note(GRADIENT, number, self.tracker.serial(grad))

        return see

    def see_gradients(self, training_step: Step) -> None:
        """Nothing to note."""
        self.tracker.see_gradients(training_step)

    def see_state(self, training_step: Step) -> None:
        """Note how many numbers the optimizer keeps, since some processes keep them in fp32."""
        self.tracker.see_state(training_step)
        for _, value in state_tensors(training_step):
            if value.is_floating_point() and value.layout == torch.strided:
                self.state[self.tracker.serial(value)] = value.numel()


def _differentiated(inputs: tuple) -> list[Tensor]:
    """Tensors among the inputs of a forward pass that have gradients."""
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.requires_grad]


def _mark(inputs: tuple, ended) -> tuple:
    """The inputs of a forward pass behind one identity, whose backward gives `ended` gradients."""
    leaves, structure = tree_flatten(inputs)
    places = [
        place
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf.requires_grad
    ]
    if not places:
        return inputs
    passed = _Passed.apply(ended, *(leaves[place] for place in places))
    for place, tensor in zip(places, passed, strict=True):
        leaves[place] = tensor
    return tree_unflatten(leaves, structure)


# Parts of a model ---------------------------------------------------------------------------------


def layers(model: nn.Module) -> list[Part]:
    """The model without its layers, and each layer: what FSDP2 gathers at a time.

    A layer is an element of an outermost nn.ModuleList, as in training/distribution.py.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inner = {id(child) for each in lists for child in each.modules() if child is not each}
    found = [layer for each in lists if id(each) not in inner for layer in each]
    parts = [Part(layer, list(layer.parameters())) for layer in found]
    in_layers = {id(param) for part in parts for param in part.params}
    rest = [param for param in model.parameters() if id(param) not in in_layers]
    return [Part(model, rest), *parts]


def layers_and_adapters(model: nn.Module) -> list[Part]:
    """The model without its units, and these from the inside out: what FSDP1 gathers at a time.

    Units are layers and, where the base is frozen, modules that add trained weights, as in peft's
    `fsdp_auto_wrap_policy`.
    """
    inside = {id(part.module) for part in layers(model)[1:]}
    if not all(trains(param) for param in model.parameters()):
        inside |= {id(module) for module in model.modules() if _is_trained_leaf(module)}
    seen: set[int] = set()
    units = []
    for module in _from_inside(model):
        if id(module) in inside:
            units.append(Part(module, _unseen(module, seen)))
    return [Part(model, _unseen(model, seen)), *units]


def _is_trained_leaf(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and trains(weight) and not list(module.children())


def _from_inside(module: nn.Module) -> Iterator[nn.Module]:
    """A module after all modules within it."""
    for child in module.children():
        yield from _from_inside(child)
    yield module


def _unseen(module: nn.Module, seen: set[int]) -> list[nn.Parameter]:
    """Parameters of a module that no unit has yet; they are seen from now on."""
    params = [param for param in module.parameters() if id(param) not in seen]
    seen |= {id(param) for param in params}
    return params


def modules_with_parameters(model: nn.Module) -> list[Part]:
    """Every module with parameters of its own: what ZeRO's third stage gathers at a time."""
    seen: set[int] = set()
    parts = []
    for module in model.modules():
        params = [param for param in module.parameters(recurse=False) if id(param) not in seen]
        seen |= {id(param) for param in params}
        if params:
            parts.append(Part(module, params))
    return parts


def nothing(model: nn.Module) -> list[Part]:  # noqa: ARG001
    """No part: where nothing is gathered, nothing needs a note."""
    return []
