"""Stand-ins for packages that a check can do without, where they are not installed.

- jsonschema checks studies and entries. Those of this repository are checked in CI, so a machine
  without it takes them as they are. Defaults are filled in by our own code either way.
- datasets reads and writes prepared data. The trainings of a check have their examples in memory.
"""

import importlib.machinery
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock


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
    for name in ("Dataset", "Features", "List", "Value"):
        setattr(package, name, MagicMock(name=name))
    writer.ArrowWriter = MagicMock(name="ArrowWriter")
    package.arrow_writer = writer
    sys.modules |= {"datasets": package, "datasets.arrow_writer": writer}


def _jsonschema() -> ModuleType:
    """A jsonschema that finds no errors."""
    module = _module("jsonschema")
    checker = SimpleNamespace(redefine_many=lambda _: None)
    module.Draft202012Validator = SimpleNamespace(TYPE_CHECKER=checker)
    validator = SimpleNamespace(iter_errors=lambda _: iter(()))
    module.validators = SimpleNamespace(extend=lambda *_, **__: lambda _: validator)
    module.exceptions = SimpleNamespace(best_match=lambda _: None)
    module.ValidationError = ValueError
    return module


def _module(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return module
