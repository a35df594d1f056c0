"""Whether a class is a method or an optimizer that training can use, read from source.

Rankwise's own files are left out: the tests hold them to more. Where torch is absent, as on a login
node, its classes cannot be read, and a job finds out.
"""

import ast
import functools

from rankwise.core import plugins
from rankwise.core.config import ConfigError
from rankwise.study.class_source import (
    ClassSource,
    find_class,
    has_unread_base,
    lineage,
    main_class,
    public_names,
)
from rankwise.study.options import METHOD_BASE, OPTIMIZER_BASE

BASES = {"methods": METHOD_BASE, "optim": OPTIMIZER_BASE}
SHOWN = {"methods": "rankwise.methods.parts.base.Method", "optim": "torch.optim.Optimizer"}
FORM = "a file's name, or package.module:Class of an installed package"


def check_reference(reference: str, key: str, file: str) -> None:
    """Check that the class of a reference is installed.

    Args:
        reference: `package.module:Class`.
        key: where it stands in the file.
        file: the file that names it.

    Raises:
        ConfigError: it has another form, or there is no such package, module, source or class.
    """
    module, _, name = reference.partition(plugins.SEPARATOR)
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ConfigError(file, key, reference, FORM)
    top = plugins.top_level(module)
    if not plugins.exists(top):
        allowed = f"a class of a package that is installed here: {top} is not (pip install)"
        raise ConfigError(file, key, reference, allowed)
    found = plugins.find(module)
    if found is None:
        raise ConfigError(file, key, reference, f"a class of a module of {top}: {module} is none")
    if not plugins.has_source(found):
        allowed = f"a class whose options can be read: {module} has no Python source"
        raise ConfigError(file, key, reference, allowed)
    if find_class(module, name) is None:
        known = [f"{module}{plugins.SEPARATOR}{public}" for public in public_names(module)]
        raise ConfigError(file, key, reference, known or f"a class, and {module} has none")


@functools.cache
def check_kind(folder: str, name: str) -> None:
    """Check that the class of a user's file or of a package is what its place in an entry asks for.

    Args:
        folder: methods or optim.
        name: `rankwise.optim.NAME`, or `package.module:Class`.

    Raises:
        ConfigError: the class has another base, or is an optimizer without `step` or `lr`.
    """
    cls = main_class(name)
    if cls.is_shipped:
        return
    classes = lineage(name)
    is_known = any(base.is_shipped and folder in base.module for base in classes)
    if not is_known and all(base.place != BASES[folder] for base in classes):
        if has_unread_base(name):
            return
        bases = ", ".join(ast.unparse(base) for base in cls.node.bases) or "no base class"
        allowed = f"a subclass of {SHOWN[folder]}"
        raise ConfigError(cls.file, f"class {cls.name}", bases, allowed)
    if folder == "optim" and not is_known:
        _check_optimizer(cls, [base for base in classes if base.place != OPTIMIZER_BASE])


def _check_optimizer(cls: ClassSource, classes: list[ClassSource]) -> None:
    names = {name for base in classes for name in _assigned(base)}
    if "step" not in names:
        allowed = "a method step, which updates the parameters with their gradients"
        raise ConfigError(cls.file, f"class {cls.name}", "no step", allowed)
    for base in classes:
        for statement in base.node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                _check_learning_rate(base, statement.args)
                return


def _assigned(cls: ClassSource) -> set[str]:
    """The names that the body of a class defines."""
    names = set()
    for statement in cls.node.body:
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {ast.unparse(target) for target in statement.targets}
    return names


def _check_learning_rate(cls: ClassSource, arguments: ast.arguments) -> None:
    """Check that `lr` can be given: training sets each group's."""
    names = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    if "lr" not in names and arguments.kwarg is None:
        given = ", ".join(names[1:]) or "no arguments"
        raise ConfigError(cls.file, f"{cls.name}.__init__", given, "an argument lr among them")
