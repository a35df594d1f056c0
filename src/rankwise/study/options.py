"""The options of a method or optimizer, with types and defaults, read from source.

The options of a method are the fields of its dataclass and of the dataclasses that it inherits
from; those of an optimizer are the arguments of its `__init__`, which may be inherited. Defaults
are the paper's. Modules are named as Python names them: `rankwise.methods.lora`; classes of
installed packages as entries name them: `lion_pack.lion:Lion`.

An optimizer need not be written for Rankwise. An argument without an annotation that an entry could
fill takes its type from its default; one whose default is no constant either is no option, and
keeps that default.
"""

import ast
import functools
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from rankwise.core import annotations, option_ranges, plugins
from rankwise.core.config import ConfigError
from rankwise.study.class_source import ClassSource, has_unread_base, lineage, main_class
from rankwise.study.constants import evaluate, with_constants

REQUIRED = object()
# Arguments of an optimizer that the workflow gives.
SUPPLIED = ("self", "params", "lr", "seed", "pairs")
# Arguments of torch's optimizers that would turn a training round or take it apart: `maximize`
# climbs the loss, the others are for gradients of a step and for CUDA graphs.
REFUSED = ("maximize", "differentiable", "capturable")
# Options whose range follows from the model's shapes: study/limits.py says it.
TOLD_APART = ("rank", "granularity", "active_layers")
METHOD_BASE = ("rankwise.methods.parts.base", "Method")
OPTIMIZER_BASE = ("torch.optim.optimizer", "Optimizer")
ALLOWED_DEFAULTS = "numbers, texts, true, false, None, arithmetic on numbers, or a tuple of these"


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: its name in config/methods.yaml.
        annotation: its type, as the source has it.
        default: as JSON has it (lists, not tuples); `REQUIRED` where there is none.
        ranges: the numbers that options of this class's kind may have, by name; none of a class
            that is not Rankwise's own.
    """

    name: str
    annotation: str
    default: object
    ranges: dict[str, option_ranges.Range] = dataclass_field(
        default_factory=dict, compare=False, repr=False
    )

    def accepts(self, value: object) -> bool:
        """Whether a value from YAML fits the annotation."""
        return annotations.accepts(self.annotation, value)

    def violated(self, value: object) -> str | None:
        """The allowed values in words, for a wrong value of the right type; None if it is right."""
        if self.name in TOLD_APART or not isinstance(value, int | float | list | dict):
            return None
        if self.name == "targets" and not value and self.default != []:
            return f"{self.allowed}, at least one"
        allowed = option_ranges.violated(self.ranges, self.name, value)
        is_optional = allowed and annotations.accepts(self.annotation, None)
        return f"{allowed}, or null" if is_optional else allowed

    def converted(self, value: object) -> object:
        """A value that the option accepts, as it means it: 3.0 is 3 for an integer."""
        return annotations.converted(self.annotation, value)

    @property
    def allowed(self) -> str:
        """The annotation in words, for error messages."""
        return annotations.in_words(self.annotation)

    @property
    def takes_text(self) -> bool:
        """Whether a text is a value here, and not a reference to a number of the cell."""
        return annotations.takes_text(self.annotation)


@functools.cache
def options(module: str) -> dict[str, Option]:
    """The options of a module's class in their order, those of base classes first.

    Raises:
        ConfigError: the class cannot be read, or an annotation or default is none that options may
        have.
    """
    classes = tuple(cls for cls in lineage(module) if cls.place != OPTIMIZER_BASE)
    for place, cls in enumerate(classes):
        if init := _function(cls, "__init__"):
            return _arguments(cls, init, classes[place + 1 :])
        if _is_dataclass(cls):
            return _fields(classes[place:])
        _refuse_fields_without_dataclass(cls)
    if has_unread_base(module) or len(classes) < len(lineage(module)):
        cls = main_class(module)
        raise ConfigError(
            cls.file,
            f"class {cls.name}",
            "no __init__ of its own",
            "an __init__ whose arguments are the options, with their defaults",
        )
    return {}


def _is_dataclass(cls: ClassSource) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in cls.node.decorator_list)


def _function(cls: ClassSource, name: str) -> ast.FunctionDef | None:
    for statement in cls.node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return statement
    return None


def _own_fields(cls: ClassSource) -> list[ast.AnnAssign]:
    """The annotated names in the body of a class, less its class variables."""
    return [
        statement
        for statement in cls.node.body
        if isinstance(statement, ast.AnnAssign)
        and "ClassVar" not in ast.unparse(statement.annotation)
    ]


def _refuse_fields_without_dataclass(cls: ClassSource) -> None:
    for field in _own_fields(cls):
        if not cls.module.startswith("rankwise.methods.parts."):
            raise ConfigError(
                cls.file,
                f"class {cls.name}",
                f"the field {ast.unparse(field.target)} and no @dataclass",
                "@dataclass(frozen=True) above a class with fields",
            )


def _fields(classes: tuple[ClassSource, ...]) -> dict[str, Option]:
    """The fields of a dataclass, those of the farthest base first.

    A field that is defined again replaces the base's field in its place.
    """
    found = {}
    for cls in reversed(classes):
        for field in _own_fields(cls) if _is_dataclass(cls) else ():
            name = ast.unparse(field.target)
            if isinstance(field.value, ast.List):
                raise ConfigError(
                    cls.file,
                    f"default of {cls.name}.{name}",
                    ast.unparse(field.value),
                    "a tuple: a dataclass has no lists as defaults",
                )
            found[name] = _option(cls, name, field.annotation, field.value)
    return found


def _arguments(
    cls: ClassSource, init: ast.FunctionDef, bases: tuple[ClassSource, ...]
) -> dict[str, Option]:
    """The arguments of `__init__`.

    If it has `**options`, the arguments of the next base's `__init__` come first.
    """
    found = {}
    if init.args.kwarg:
        if not cls.is_shipped and not plugins.exists("torch"):
            # Its base class may be torch's, and a request must not depend on where it is planned.
            allowed = "arguments by name, or torch installed where the study is planned"
            raise ConfigError(cls.file, f"{cls.name}.__init__", f"**{init.args.kwarg.arg}", allowed)
        for place, base in enumerate(bases):
            if inherited := _function(base, "__init__"):
                found |= _arguments(base, inherited, bases[place + 1 :])
                break
    positional = [*init.args.posonlyargs, *init.args.args]
    without_default = len(positional) - len(init.args.defaults)
    defaults = [None] * without_default + init.args.defaults + init.args.kw_defaults
    for argument, default in zip([*positional, *init.args.kwonlyargs], defaults, strict=True):
        name = argument.arg
        if name in SUPPLIED or name in REFUSED or argument in positional[1:2]:  # the parameters
            continue
        option = _argument(cls, name, argument.annotation, default)
        if option is not None:
            found[name] = option
    return found


def _argument(
    cls: ClassSource, name: str, annotation: ast.expr | None, default: ast.expr | None
) -> Option | None:
    """The option of one argument, as far as an entry can set it.

    Returns:
        None for an argument whose default is no constant and whose type no entry can write.

    Raises:
        ConfigError: the default of an annotated argument in a user's own file contradicts it.
    """
    text = _annotation_text(annotation)
    is_written_for_us = cls.module.startswith("rankwise.") and annotations.is_supported(text)
    if annotation is not None and is_written_for_us:
        return _option(cls, name, annotation, default)
    part = annotations.supported_part(text) if annotation is not None else None
    if default is None:
        return Option(name, part or annotations.ANYTHING, REQUIRED, _ranges(cls))
    try:
        value = evaluate(with_constants(default, cls.module))
    except (ValueError, ArithmeticError, TypeError):
        return None
    if part is None or not annotations.accepts(part, value):
        # `weight_decay: float = None` takes a number as well.
        part = f"{part} | None" if part and value is None else annotations.of_default(value)
    return Option(name, part, value, _ranges(cls))


def _ranges(cls: ClassSource) -> dict[str, option_ranges.Range]:
    folder = cls.module.split(".")[1:2] if cls.is_shipped else []
    return option_ranges.BY_FOLDER[folder[0]] if folder else {}


def _annotation_text(annotation: ast.expr | None) -> str:
    """An annotation as the source has it, without quotes; `nothing` if there is none."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return "nothing" if annotation is None else ast.unparse(annotation)


def _option(
    cls: ClassSource, name: str, annotation: ast.expr | None, default: ast.expr | None
) -> Option:
    """An option whose annotation and default have been checked.

    Raises:
        ConfigError: names the file, the class and the option.
    """
    text = _annotation_text(annotation)
    if annotation is None or not annotations.is_supported(text):
        raise ConfigError(cls.file, f"annotation of {cls.name}.{name}", text, annotations.ALLOWED)
    if default is None:
        return Option(name, text, REQUIRED, _ranges(cls))
    key = f"default of {cls.name}.{name}"
    try:
        value = evaluate(default)
    except (ValueError, ArithmeticError, TypeError):
        raise ConfigError(cls.file, key, ast.unparse(default), ALLOWED_DEFAULTS) from None
    option = Option(name, text, value, _ranges(cls))
    if not option.accepts(value):
        raise ConfigError(cls.file, key, value, f"{option.allowed}, for the annotation is {text}")
    return option


# Class constants ----------------------------------------------------------------------------------


@functools.cache
def constant(module: str, name: str, default: object) -> object:
    """The value of a constant (QUANTIZED, RELEASE) of a module's class or its nearest base.

    Args:
        module: the dotted name, `rankwise.methods.lora`.
        name: the constant's name.
        default: returned if no class of rankwise in the lineage assigns it.

    Raises:
        ConfigError: the value is an expression that only running it would tell, or a class cannot
            be read.
    """
    for cls in lineage(module):
        for statement in cls.node.body:
            targets, value = _assignment(statement)
            if name in targets and value is not None:
                try:
                    return ast.literal_eval(value)
                except ValueError:
                    raise ConfigError(
                        cls.file, f"{cls.name}.{name}", ast.unparse(value), "a constant"
                    ) from None
    return default


def _assignment(statement: ast.stmt) -> tuple[list[str], ast.expr | None]:
    """The names that a statement assigns, and the value."""
    if isinstance(statement, ast.Assign):
        return [ast.unparse(target) for target in statement.targets], statement.value
    if isinstance(statement, ast.AnnAssign):
        return [ast.unparse(statement.target)], statement.value
    return [], None


@functools.cache
def takes_argument(module: str, name: str) -> bool:
    """Whether the constructor of a module's class, or of its nearest base with one, has `name`.

    Args:
        module: the dotted name, `rankwise.optim.lora_pro`.
        name: of the argument.

    Raises:
        ConfigError: a class cannot be read.
    """
    for cls in lineage(module):
        if init := _function(cls, "__init__"):
            arguments = (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)
            return name in {argument.arg for argument in arguments}
    return False


@functools.cache
def defines(module: str, name: str) -> bool:
    """Whether a module's class, or a base of it other than `Method` itself, has a certain method.

    Args:
        module: the dotted name, `rankwise.methods.lora`.
        name: the name of the Python method.

    Raises:
        ConfigError: a class cannot be read.
    """
    return any(
        _function(cls, name) is not None
        for cls in lineage(module)
        if (cls.module, cls.name) != METHOD_BASE
    )
