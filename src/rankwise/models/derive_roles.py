"""Tell what each matrix of a model does, from the way that data flow through it.

The model runs once on the meta device. Each tensor carries labels: the matrices that it was made of
since the last matrix, and whether a nonlinearity or an attention lies between. Then:

- scores are the product that a softmax takes: their left factor is the query, their right the key;
- what the attention's probabilities multiply is the value; one matrix that makes all three is
  `attention`;
- the matrix that reads the attended values is the output;
- the matrix that reads an activated matrix is down; what it reads is up, or, where a factor without
  activation multiplies it, that factor is up and the activated one the gate. One matrix that makes
  both is `gate_up`.

Attention is Vaswani et al. 2017 (arXiv 1706.03762, eq. 1), the gated layer Shazeer 2020 (arXiv
2002.05202, eq. 5). The names of modules play no part.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary
from transformers.pytorch_utils import Conv1D

ROLES = ("query", "key", "value", "attention", "output", "gate", "up", "gate_up", "down")
LINEAR = (nn.Linear, Conv1D)
TOKENS = 8  # of the text that runs through the model

# Functions by name; torch has several objects for one of them (functional, method, operator).
_SOFTMAX = {"softmax"}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm"}
_ACTIVATIONS = {
    *("silu", "gelu", "relu", "relu_", "leaky_relu", "elu", "mish", "softplus", "hardtanh"),
    *("tanh", "sigmoid", "erf", "selu", "celu", "relu6", "hardswish"),
}
_READS = {"item", "__bool__", "__int__", "__index__", "__float__"}  # of a number out of a tensor
_MULTIPLIES = {"mul", "__mul__", "__rmul__", "multiply", "mul_", "__imul__"}


class Label(NamedTuple):
    """One matrix behind a tensor.

    Attributes:
        matrix: the full name of the module.
        activated: a nonlinearity lies between the matrix and the tensor.
        attended: the tensor is a mean of values, weighted by attention.
    """

    matrix: str
    activated: bool = False
    attended: bool = False


@dataclass
class _Flow:
    """The known facts of a tensor.

    Attributes:
        labels: the matrices that it was made of, since the last one.
        from_tokens: it depends on the text, unlike a table of relative positions.
        probabilities: it is the result of a softmax, or a view of it.
        products: the pairs of factors whose product it is: labels of the left and of the right.
        gates: pairs of an activated factor and another one that were multiplied.
        weight: it is the weight of this matrix, or a view of it.
    """

    labels: frozenset[Label] = frozenset()
    from_tokens: bool = False
    probabilities: bool = False
    products: tuple[tuple[frozenset[Label], frozenset[Label]], ...] = ()
    gates: frozenset[tuple[str, str]] = frozenset()
    weight: str | None = None


@dataclass
class Roles:
    """The facts that the flow of data shows.

    Attributes:
        matrices: role -> full names of the modules, in the model's order.
        width: of the hidden states that the model returns.
    """

    matrices: dict[str, list[str]] = field(default_factory=dict)
    width: int = 0


def roles_of(model: nn.Module) -> Roles:
    """The roles of a base model's matrices.

    Args:
        model: of transformers, without a head, on the meta device, with eager attention.

    Raises:
        Exception: whatever the model raises when it runs on eight tokens on the meta device.
    """
    trace = _Trace(model)
    ids = torch.zeros((1, TOKENS), dtype=torch.long, device="meta")
    was_training = model.training
    model.eval()
    with torch.no_grad(), trace:
        trace.flows[ids] = _Flow(from_tokens=True)
        of_decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        hidden = model(input_ids=ids, **of_decoder)[0]
    model.train(was_training)
    return Roles(trace.roles(), hidden.shape[-1])


class _Trace(TorchFunctionMode):
    """Label every tensor while a model runs, and note what each matrix is for."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.flows = WeakIdKeyDictionary()
        self._shapes: dict[str, tuple[int, int]] = {}  # (out, in)
        for name, module in model.named_modules():
            if isinstance(module, LINEAR):
                self.flows[module.weight] = _Flow(weight=name)
                rows, columns = module.weight.shape
                is_conv = isinstance(module, Conv1D)
                self._shapes[name] = (columns, rows) if is_conv else (rows, columns)
        self._found: dict[str, set[str]] = {}  # full name -> roles

    def __torch_function__(
        self, func: Callable, types: Iterable, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        inputs = list(_tensors((args, tuple(kwargs.values()))))
        if name in _READS and inputs[0].is_meta:
            # A meta tensor has no number. True lets checks pass, such as `if mask.all()`.
            return inputs[0].dtype == torch.bool or 1
        if name == "__contains__":
            return False
        result = func(*args, **kwargs)
        flow = self._flow(name, inputs)
        for output in _tensors(result):
            self.flows[output] = flow
        if name == "__setitem__":
            self.flows[inputs[0]] = flow
        return result

    def roles(self) -> dict[str, list[str]]:
        """Role -> full names, of the matrices with one role; in the order of ROLES."""
        one_role = {name: roles for name, roles in self._found.items() if len(roles) == 1}
        matrices = {}
        for role in ROLES:
            of_role = [name for name in self._shapes if one_role.get(name) == {role}]
            if of_role:
                matrices[role] = of_role
        return matrices

    def _flow(self, name: str, inputs: list[Tensor]) -> _Flow:
        """The flow of what a function returns, from its name and its tensors."""
        flows = [self.flows.get(x, _Flow()) for x in inputs]
        merged = _merged(flows)
        if merged.weight and merged.from_tokens:
            self._note_reader(merged.weight, merged)
            return _Flow(frozenset({Label(merged.weight)}), from_tokens=True)
        if merged.weight:  # a view of the weight; or a matrix that reads no text
            return _Flow(weight=merged.weight if len(inputs) == 1 else None)
        if name in _SOFTMAX:
            self._note_scores(merged)
            return _Flow(from_tokens=merged.from_tokens, probabilities=True)
        if name in _PRODUCTS and len(flows) > 1:
            return self._product(flows, merged)
        if name in _ACTIVATIONS:
            merged.labels = frozenset(label._replace(activated=True) for label in merged.labels)
        if name in _MULTIPLIES and len(flows) > 1:
            merged.gates |= _gates(flows[0].labels, flows[1].labels)
        return merged

    def _note_reader(self, matrix: str, read: _Flow) -> None:
        """The role of a matrix from what it reads."""
        if any(label.attended for label in read.labels):
            self._note(matrix, "output")
        elif any(label.activated for label in read.labels):
            self._note_feed_forward(matrix, read)

    def _product(self, flows: list[_Flow], merged: _Flow) -> _Flow:
        """Scores, or attended values; a product of anything else keeps what is known of both."""
        left, right = flows[-2:]
        if left.probabilities and right.labels:
            self._note_values(right.labels)
            attended = frozenset(label._replace(attended=True) for label in right.labels)
            return _Flow(attended, from_tokens=True)
        if left.labels and right.labels:
            merged.products = ((left.labels, right.labels),)
        return merged

    def _note(self, matrix: str, role: str) -> None:
        self._found.setdefault(matrix, set()).add(role)

    def _note_scores(self, scores: _Flow) -> None:
        for left, right in scores.products:
            queries = {label.matrix for label in left}
            keys = {label.matrix for label in right}
            for matrix in queries | keys:
                if matrix in queries and matrix in keys:
                    self._note(matrix, "attention")
                else:
                    self._note(matrix, "query" if matrix in queries else "key")

    def _note_values(self, labels: frozenset[Label]) -> None:
        for label in labels:
            if "attention" not in self._found.get(label.matrix, ()):
                self._note(label.matrix, "value")

    def _note_feed_forward(self, down: str, read: _Flow) -> None:
        """The matrices in front of one that reads an activated product."""
        inner = self._shapes[down][1]
        gates = {pair for pair in read.gates if self._is_new(pair[0])}
        activated = {label.matrix for label in read.labels if label.activated}
        activated = {matrix for matrix in activated if self._is_new(matrix)}
        if not activated:
            return
        self._note(down, "down")
        for gate, up in gates:
            if gate == up and self._shapes[gate][0] == 2 * inner:
                self._note(gate, "gate_up")
            elif gate != up:
                self._note(gate, "gate")
                self._note(up, "up")
        for matrix in activated:
            if not self._found.get(matrix) and self._shapes[matrix][0] == inner:
                self._note(matrix, "up")

    def _is_new(self, matrix: str) -> bool:
        """Whether a matrix may stand in front of `down`: it has no role in an attention."""
        return not self._found.get(matrix, set()) & {"query", "key", "value", "attention", "output"}


def _tensors(value: object) -> Iterable[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _merged(flows: list[_Flow]) -> _Flow:
    """The known facts of a tensor that is made of several."""
    return _Flow(
        frozenset().union(*(flow.labels for flow in flows)),
        any(flow.from_tokens for flow in flows),
        any(flow.probabilities for flow in flows),
        tuple(pair for flow in flows for pair in flow.products),
        frozenset().union(*(flow.gates for flow in flows)),
        next((flow.weight for flow in flows if flow.weight), None),
    )


def _gates(left: frozenset[Label], right: frozenset[Label]) -> frozenset[tuple[str, str]]:
    """(activated, not activated) matrices of two factors."""
    pairs = set()
    for one, other in ((left, right), (right, left)):
        for label in one:
            if label.activated:
                pairs |= {(label.matrix, x.matrix) for x in other if not x.activated}
    return frozenset(pairs)
