"""Checks of an optimizer's options, from its constructor and from every parameter group.

An option's kind is its annotation in `__init__`; core/option_ranges.py adds the numbers that it may
have. A study's YAML file is checked from both before torch is loaded, in the same words.
"""

import difflib
import inspect
import numbers
import types
import typing
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from rankwise.core.option_ranges import FINITE, INTEGER, OPTIMIZERS, Range

# Options of a parameter group that no constructor needs to name.
ALWAYS = {"lr": float, "weight_decay": float, "dense": bool}
# Keys of a parameter group that are no options: torch's, a scheduler's, a label.
OTHER_KEYS = {"params", "param_names", "initial_lr", "name"}


class Checked:
    """Mixin in front of a torch optimizer, which refuses wrong options and says what is allowed.

    A constructor whose base class does not check the options itself calls `check_options` first.
    """

    COMPLEX = False  # whether the step is right for complex parameters
    HALF = False  # whether it is for float16, in which the square of a number below 2e-4 is 0
    SPARSE = False  # whether the step takes sparse gradients
    NOT_BY_GROUP = frozenset({"release"})  # options that all parameter groups share
    GROUP_KEYS = frozenset()  # keys of a group that are no options of the constructor
    TORCH_OPTIONS = True  # whether a group may set what only the class behind has as options

    @classmethod
    def check_options(cls, options: dict, where: str = "") -> None:
        """Check the values of options.

        Args:
            options: values by name; a name that no constructor has is not checked.
            where: the parameter group, for messages, such as "param_groups[1].".

        Raises:
            ValueError: a value is not allowed.
        """
        annotations = {**ALWAYS, **_annotations(cls)}
        for name, value in options.items():
            if not _is_checked(annotations.get(name)):
                continue
            allowed, is_allowed = _allowed(name, annotations[name])
            is_tensor_rate = name == "lr" and isinstance(value, Tensor) and value.numel() == 1
            if not is_allowed(value.item() if is_tensor_rate else value):
                raise ValueError(_message(cls, f"{where}{name}", value, allowed, value))

    def add_param_group(self, param_group: dict) -> None:
        """Add a parameter group, as in torch.

        Raises:
            ValueError: the group has an unknown key, a value that is not allowed, or a parameter
                that the optimizer cannot step. It is then not added.
        """
        if isinstance(param_group, dict):  # torch refuses anything else
            cls, where = type(self), f"param_groups[{len(self.param_groups)}]."
            names = {*ALWAYS, *_annotations(cls), *cls.GROUP_KEYS} - cls.NOT_BY_GROUP
            for key, value in param_group.items():
                is_torchs = key in self.defaults and (
                    self.TORCH_OPTIONS or value == self.defaults[key]
                )
                if key not in names | OTHER_KEYS and not is_torchs:
                    raise ValueError(_message(cls, f"{where}{key}", value, names, key))
            self.check_options(param_group, where)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for param in group["params"]:
                self.check_param(group, param)
        except ValueError:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state, as in torch.

        Raises:
            ValueError: the state is that of another optimizer: its groups lack options of this
                one, or have options that this one does not know. Nothing is loaded.
        """
        options = set(_annotations(type(self))) & set(self.defaults)
        for number, group in enumerate(state_dict["param_groups"]):
            lacking = sorted(options - set(group))
            # A scheduler's keys stay; only what some optimizer of ours has as an option is foreign.
            foreign = sorted(set(OPTIMIZERS) & set(group) - {*ALWAYS, *self.defaults})
            if lacking or foreign:
                got = f"a state without {', '.join(lacking)}" if lacking else ""
                got += " and " if lacking and foreign else ""
                got += f"a state with {', '.join(foreign)}" if foreign else ""
                raise ValueError(
                    f"{type(self).__name__}.load_state_dict: param_groups[{number}]: got {got}, "
                    f"allowed: a state that {type(self).__name__} has saved, with the options "
                    f"{', '.join(sorted(options))}"
                )
        super().load_state_dict(state_dict)

    def check_param(self, group: dict, param: Tensor) -> None:
        """Raise a ValueError if the optimizer cannot step a parameter with its group's options."""
        name = type(self).__name__
        if param.is_complex() and not self.COMPLEX:
            raise ValueError(f"complex parameters: not supported by {name}")
        if param.dtype == torch.float16 and not self.HALF:
            raise ValueError(
                f"float16 parameters: not supported by {name}, because squares of small gradients "
                "become 0 in float16; use bfloat16, or keep the parameters in float32 and run the "
                "model under torch.autocast"
            )

    def refuse_sparse(self, grad: Tensor) -> None:
        """Raise a RuntimeError if the gradient is sparse and the optimizer takes none."""
        if not self.SPARSE and grad.layout is not torch.strided:
            raise RuntimeError(
                f"sparse gradients: not supported by {type(self).__name__}; build the layer with "
                "sparse=False"
            )


def settings(arguments: dict) -> dict:
    """Return the options in the `locals()` of an optimizer's `__init__`, as group defaults.

    Reading them there keeps the signature, which planning reads without torch, the only list of
    options.
    """
    not_options = ("self", "params", "release", "__class__")
    return {name: value for name, value in arguments.items() if name not in not_options}


def _annotations(cls: type) -> dict[str, object]:
    """The annotations of all constructors of our own in the class's lineage, the nearest first."""
    found: dict[str, object] = {}
    for base in cls.__mro__:
        if issubclass(base, Checked) and "__init__" in vars(base):
            hints = typing.get_type_hints(base.__init__)
            for name in inspect.signature(base.__init__).parameters:
                if name not in ("self", "params", "defaults"):
                    found.setdefault(name, hints.get(name))
    return found


def _is_checked(annotation: object) -> bool:
    """Whether `_allowed` knows an annotation; other annotations allow any value."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if types.NoneType in arguments:
        return _is_checked(arguments[0])
    is_floats = origin is tuple and set(arguments) == {float}
    return origin is Literal or is_floats or annotation in (bool, int, float)


def _allowed(name: str, annotation: object) -> tuple[object, Callable[[object], bool]]:
    """The allowed values of an option, in words or as a set of names, and the test of a value.

    Args:
        name: of the option, for its range.
        annotation: bool, int, float, Literal[...], a tuple of float, or one of these or None.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return set(arguments), lambda value: any(_is_same(value, choice) for choice in arguments)
    if types.NoneType in arguments:
        words, is_allowed = _allowed(name, arguments[0])
        return f"{words}, or None", lambda value: value is None or is_allowed(value)
    if annotation is bool:
        return "True or False", lambda value: isinstance(value, bool)
    known = OPTIMIZERS.get(name, INTEGER if annotation is int else FINITE)
    if origin is tuple:
        words = f"{len(arguments)} values, each {known.allowed}"
        return (
            words,
            lambda value: (
                isinstance(value, tuple | list)
                and len(value) == len(arguments)
                and all(_is_number(item, float, known) for item in value)
            ),
        )
    return known.allowed, lambda value: _is_number(value, annotation, known)


def _is_same(value: object, choice: object) -> bool:
    """Equal and of one type: True is not 1."""
    return type(value) is type(choice) and value == choice


def _is_number(value: object, annotation: object, known: Range) -> bool:
    """Whether a value is an int or float in the range; True and False are no numbers."""
    kind = numbers.Integral if annotation is int else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool) and known.holds(value)


def _message(cls: type, key: str, value: object, allowed: object, misspelt: object) -> str:
    """The sentence about a wrong value; it names the allowed name that is nearest to `misspelt`."""
    hint = ""
    if isinstance(allowed, set):
        names = {str(name).lower(): str(name) for name in sorted(allowed, key=str)}
        nearest = difflib.get_close_matches(str(misspelt).lower(), names, n=1)
        hint = f" (nearest: {names[nearest[0]]!r})" if nearest else ""
        allowed = ", ".join(names.values())
    return f"{cls.__name__}: {key}: got {value!r}, allowed: {allowed}{hint}"
