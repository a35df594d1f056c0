"""Stand-ins for packages that a check can do without, where they are not installed.

- jsonschema checks studies and entries. Those of this repository are checked in CI, so a machine
  without it takes them as they are. Defaults are filled in by our own code either way.
- datasets reads and writes prepared data. The trainings of a check have their examples in memory.
"""

import importlib.machinery
import importlib.util
import sys
from types import ModuleType, SimpleNamespace


class _Description:
    """Takes what a column is described with, and does nothing."""

    def __init__(self, *_: object, **__: object):
        pass


class _Missing:
    """Refuses to read or write."""

    def __init__(self, *_: object, **__: object):
        raise ImportError(f"{type(self).__name__} needs the package datasets, which is missing")


def install() -> list[str]:
    """Put stand-ins in place of what is missing; called before anything of Rankwise is imported.

    Returns:
        Names of the missing packages.
    """
    made = {"jsonschema": _jsonschema}
    missing = [name for name in made if importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules[name] = made[name]()
    return missing


def install_datasets() -> None:
    """The same for `datasets`; only for a process that trains in memory and uses no Trainer.

    transformers asks for `datasets` too, and would take the stand-in for the package.
    """
    if importlib.util.find_spec("datasets") is not None:
        return
    package, writer = _module("datasets"), _module("datasets.arrow_writer")
    for name in ("Features", "List", "Value"):  # modules describe their columns with these
        setattr(package, name, type(name, (_Description,), {}))
    package.Dataset = type("Dataset", (_Missing,), {})
    writer.ArrowWriter = type("ArrowWriter", (_Missing,), {})
    package.arrow_writer = writer
    sys.modules |= {"datasets": package, "datasets.arrow_writer": writer}


def _jsonschema() -> ModuleType:
    """A jsonschema that finds no errors."""
    module = _module("jsonschema")
    checker = SimpleNamespace(redefine_many=lambda _: None)
    module.Draft202012Validator = SimpleNamespace(TYPE_CHECKER=checker)
    validator = SimpleNamespace(iter_errors=lambda _: iter(()))
    module.validators = SimpleNamespace(extend=lambda *_, **__: lambda *_, **__: validator)
    formats = SimpleNamespace(checks=lambda *_, **__: lambda check: check)
    module.FormatChecker = lambda **_: formats
    module.exceptions = SimpleNamespace(best_match=lambda _: None)
    module.ValidationError = ValueError
    return module


def _module(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return module
