"""Results of operators on the meta device, remembered by the shapes of their arguments.

torch computes the shapes of many results in Python, which takes most of a prediction's time. A
model of equal layers asks the same questions again and again. An operator's result is remembered if
it is new memory: neither a view nor one of the arguments. Then an empty tensor of the same shape
and layout can stand in for it, because a meta tensor has no values.

An operator that writes into its arguments has nothing to write. If it has left their shapes and
memory as they were, it is not called again on arguments like these.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

# Kinds of operators: they return new tensors and write nothing; they write into their first
# argument, and return it or nothing; all others.
FUNCTIONAL, IN_PLACE, OTHER = "functional", "in place", "other"
# What an operator in place returns, where other results have a layout.
_FIRST_ARGUMENT, _NOTHING = "its first argument", "nothing"


class _Unknown(Exception):
    """An argument is not described by its shape.

    It has values, is sparse, or is of a class that answers operators itself (a released gradient).
    """


class _Layout(NamedTuple):
    """The arguments that make an empty tensor."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


class MetaResults:
    """Runs operators, and answers from memory where the same shapes come again."""

    def __init__(self) -> None:
        # Layouts by operator and arguments; a single tensor's layout is not in a list.
        self._known: dict[tuple, Any] = {}
        self._kinds: dict[Any, str] = {}

    def of(self, func: OpOverload, args: tuple, kwargs: dict) -> Any:
        """The result of an operator.

        Args:
            func: As a dispatch mode is called with it.
            args: Its positional arguments.
            kwargs: Its other arguments.
        """
        if func not in self._kinds:
            self._kinds[func] = _kind(func)
        kind = self._kinds[func]
        if kind == OTHER:
            return func(*args, **kwargs)
        try:
            key = (func, _described(args), _described(tuple(kwargs.items())))
        except _Unknown:
            return func(*args, **kwargs)
        known = self._known.get(key)
        if known is not None:
            return _made(known, args)
        if kind == IN_PLACE:
            return self._run_in_place(key, func, args, kwargs)
        output = func(*args, **kwargs)
        self._remember(key, func, (args, kwargs), output)
        return output

    def _run_in_place(self, key: tuple, func: OpOverload, args: tuple, kwargs: dict) -> Any:
        """Run an operator that writes into its first argument, and read the result there."""
        before = _described(args), _storages(args)
        output = func(*args, **kwargs)
        is_known = output is None or output is args[0]
        if is_known and (_described(args), _storages(args)) == before:
            self._known[key] = _NOTHING if output is None else _FIRST_ARGUMENT
        return output

    def _remember(self, key: tuple, func: OpOverload, given: tuple, output: Any) -> None:
        outputs = output if isinstance(output, tuple | list) else [output]
        held = _storages(outputs)
        if set(held) & set(_storages(given)):
            self._kinds[func] = OTHER  # _unsafe_view, whose schema calls it no view
            return
        layouts = [_layout(value) for value in outputs]
        if None not in layouts and len(set(held)) == len(held):
            self._known[key] = layouts[0] if isinstance(output, Tensor) else layouts


def _kind(func: OpOverload) -> str:
    """The kind of an operator by its schema: FUNCTIONAL, IN_PLACE or OTHER."""
    if not isinstance(func, OpOverload):
        return OTHER
    arguments, returns = func._schema.arguments, func._schema.returns
    if all(value.alias_info is None for value in [*arguments, *returns]):
        return FUNCTIONAL if returns else OTHER
    first, others = arguments[0].alias_info, arguments[1:]
    writes_it = first is not None and first.is_write
    writes_no_other = all(value.alias_info is None for value in others)
    returns_no_more = all(value.alias_info is not None for value in returns) and len(returns) < 2
    return IN_PLACE if writes_it and writes_no_other and returns_no_more else OTHER


def _described(value: Any) -> Any:
    """A key of everything that a result's shape can depend on; 1, 1.0 and True are told apart."""
    if isinstance(value, Tensor):
        is_plain = value.is_meta and value.layout is torch.strided
        if not is_plain or type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise _Unknown
        return value.shape, value.stride(), value.dtype
    if isinstance(value, tuple | list):
        return tuple([_described(item) for item in value])
    return type(value), value


def _layout(value: Any) -> _Layout | None:
    """The layout of a tensor that has a storage of its own size; None of everything else."""
    is_plain = type(value) is Tensor and value.is_meta and value.layout is torch.strided
    if not is_plain:
        return None
    layout = _Layout(value.shape, value.stride(), value.dtype)
    same_size = layout.tensor().untyped_storage().nbytes() == value.untyped_storage().nbytes()
    return layout if same_size else None


def _made(known: Any, args: tuple) -> Any:
    """The earlier result of an operator, made again for these arguments."""
    if known is _NOTHING:
        return None
    if known is _FIRST_ARGUMENT:
        return args[0]
    return known.tensor() if isinstance(known, _Layout) else [one.tensor() for one in known]


def _storages(value: Any) -> list[int]:
    """The addresses of the storages of all tensors in nested values."""
    if isinstance(value, Tensor):
        return [value.untyped_storage()._cdata] if value.layout is torch.strided else []
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [storage for item in value for storage in _storages(item)]
    return []
