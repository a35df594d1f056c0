"""Load the class of a method or optimizer by what an entry calls its module."""

import importlib
import inspect
from collections.abc import Callable

from rankwise.core import plugins
from rankwise.core.errors import BrokenModule
from rankwise.core.paths import own_folder
from rankwise.core.provenance import source_file


def class_in(folder: str, module: str, base: type) -> type:
    """The class of an entry's module.

    Args:
        folder: methods or optim.
        module: the name of a file, whose class is named like it, whatever the case and without
            underscores; or `package.module:Class`.
        base: what it must be a subclass of.

    Raises:
        BrokenModule: the file cannot be imported, has no such class, or that has another base.
    """
    return _checked(_found(folder, module), base, module)


def _found(folder: str, module: str) -> type:
    if plugins.is_reference(module):
        return _class_of_package(module)
    loaded = _import_module(folder, module)
    wanted = module.replace("_", "")
    for name, value in vars(loaded).items():
        if name.lower() == wanted and isinstance(value, type):
            return value
    shown = source_file(f"rankwise.{folder}.{module}")
    raise BrokenModule(f"{shown}: no class named like the file")


def _class_of_package(reference: str) -> type:
    module, _, name = reference.partition(plugins.SEPARATOR)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # a package may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise BrokenModule(f"{reference}: cannot be imported ({reason})") from error
    if not isinstance(found, type):
        raise BrokenModule(f"{reference}: {module} has no class {name}")
    return found


def _import_module(folder: str, module: str) -> object:
    """Import a module of the package or, if it has none of this name, of the user's folder."""
    name = f"rankwise.{folder}.{module}"
    package = importlib.import_module(f"rankwise.{folder}")
    own = str(own_folder(folder))
    if own_folder(folder).is_dir() and own not in package.__path__:
        package.__path__.append(own)
        importlib.invalidate_caches()  # the file may be younger than Python's list of the folder
    try:
        return importlib.import_module(name)
    except Exception as error:  # a user's file may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise BrokenModule(f"{source_file(name)}: cannot be imported ({reason})") from error


def _checked(loaded: type, base: type, module: str) -> type:
    """The class, if it has this base class."""
    if not issubclass(loaded, base):
        wanted = f"{base.__module__}.{base.__qualname__}"
        raise BrokenModule(f"{module}: {loaded.__name__} is no subclass of {wanted}")
    return loaded


def as_declared(options: dict, constructor: Callable) -> dict:
    """Options from JSON, whose lists become tuples unless the option is annotated as a list."""
    parameters = inspect.signature(constructor).parameters
    values = {}
    for name, value in options.items():
        annotation = str(parameters[name].annotation) if name in parameters else ""
        is_tuple = isinstance(value, list) and "list" not in annotation.lower()
        values[name] = tuple(value) if is_tuple else value
    return values
