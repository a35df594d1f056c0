"""Files of a user's own that are found by name: their constants and their import.

Planning reads the constants without importing a file, because a task's file would import torch.
Standard library only.
"""

import ast
import contextlib
import importlib
from pathlib import Path
from types import ModuleType

from rankwise.core.errors import ConfigError
from rankwise.core.paths import OWN_FOLDERS, PACKAGE, own_folder


def load(folder: str, name: str) -> ModuleType:
    """Import a module of the package that a folder of the project belongs to.

    Args:
        folder: A key of OWN_FOLDERS.
        name: Of a file in the package or in the folder, without `.py`.

    Raises:
        ValueError: The file cannot be imported; the message says why.
    """
    package = importlib.import_module(OWN_FOLDERS[folder])
    own = str(own_folder(folder))
    if own_folder(folder).is_dir() and own not in package.__path__:
        package.__path__.append(own)
        importlib.invalidate_caches()  # the file may be younger than Python's list of the folder
    try:
        return importlib.import_module(f"{package.__name__}.{name}")
    except Exception as error:  # a user's file may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}/{name}.py: cannot be imported ({reason})") from error


def shown(file: Path) -> str:
    """A file as messages name it."""
    for root in (PACKAGE.parents[1], Path.cwd()):
        if file.is_relative_to(root):
            return str(file.relative_to(root))
    return str(file)


def constants(file: Path) -> tuple[dict[str, object], set[str]]:
    """The constants that a module assigns at its top, if they are plain values, and all its names.

    Raises:
        ConfigError: The file is no Python.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError(shown(file), f"line {error.lineno}", error.msg, "Python") from None
    except ValueError as error:  # bytes that are no text, or null bytes
        raise ConfigError(shown(file), "file", str(error), "Python in UTF-8") from None
    found, defined = {}, set()
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            defined.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                assigned = _assigned(target, statement.value)
                defined |= set(assigned)
                # An expression that only running it would tell is no constant.
                for name, value in assigned.items():
                    with contextlib.suppress(ValueError):
                        found[name] = ast.literal_eval(value)
    return found, defined


def _assigned(target: ast.expr, value: ast.expr) -> dict[str, ast.expr]:
    """Name -> expression of an assignment: of `A, B = 1, 2` one for each name."""
    is_pair = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
    if is_pair and len(target.elts) == len(value.elts):
        pairs = zip(target.elts, value.elts, strict=True)
        return {ast.unparse(name): part for name, part in pairs}
    return {ast.unparse(target): value}
