"""The source of one module: its syntax tree, what it imports, and the mistakes that the text shows.

Nothing is imported, because a method's file would import torch. Every mistake is a ConfigError of
one sentence.
"""

import ast
import builtins
import functools
import importlib.util
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path

from rankwise.core import plugins
from rankwise.core.config import ConfigError
from rankwise.core.paths import module_file
from rankwise.core.provenance import LOCKS, PACKAGE, lazily_imported, source_file

# Names that Python itself gives to a module or to a class body.
GIVEN_NAMES = frozenset({*dir(builtins), "__file__", "__path__", "__module__", "__qualname__"})


def parse(module: str) -> ast.Module:
    """The syntax tree of a module whose file exists.

    Raises:
        ConfigError: the file is not valid Python, or uses or imports a name that does not exist.
    """
    return _parse(file_of(module), module)


def file_of(module: str) -> Path | None:
    """The module's file, or None.

    Raises:
        ConfigError: Rankwise and the user's own folder both have it.
    """
    try:
        return module_file(module)
    except ValueError:
        own = "/".join(module.split(".")[1:]) + ".py"
        raise ConfigError(
            own, "file name", Path(own).stem, "a name that no file of Rankwise has"
        ) from None


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, branches of `if` and `try` included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, ast.If | ast.Try | ast.ExceptHandler):
            yield from statements(child)


@functools.cache
def imports(module: str) -> dict[str, str]:
    """The imports of `module` by local name: {"Lora": "rankwise.methods.lora.Lora"}."""
    names = {}
    for statement in statements(parse(module)):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                top_level = alias.name.partition(".")[0]
                names[alias.asname or top_level] = alias.name if alias.asname else top_level
        elif isinstance(statement, ast.ImportFrom):
            source = import_source(module, statement)
            for alias in statement.names:
                names[alias.asname or alias.name] = f"{source}.{alias.name}"
    return names


def import_source(module: str, statement: ast.ImportFrom) -> str:
    """The absolute name of the module that a `from ... import` statement reads."""
    if not statement.level:
        return statement.module or ""
    parts = module.split(".")
    if file_of(module).stem == "__init__":  # a package is its own parent
        parts.append("__init__")
    parents = parts[: -statement.level]
    return ".".join([*parents, *([statement.module] if statement.module else [])])


# Mistakes -----------------------------------------------------------------------------------------


@functools.cache
def _parse(file: Path, module: str) -> ast.Module:
    shown = source_file(module)
    if not plugins.has_source(file):
        raise ConfigError(shown, "file", "no source", "a class whose Python source is there")
    text = file.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text, filename=shown)
        scopes = symtable.symtable(text, shown, "exec")
    except SyntaxError as error:
        raise ConfigError(shown, f"line {error.lineno}", error.msg, "valid Python") from None
    if plugins.top_level(module) == PACKAGE:
        _check_names(tree, scopes, shown)
        _check_imports(tree, module, shown)
    elif not plugins.is_covered(plugins.top_level(module), LOCKS):
        _check_imports(tree, module, shown)
    return tree


def _check_names(tree: ast.Module, scopes: symtable.SymbolTable, shown: str) -> None:
    """Refuse names that nothing defines: importing or running the file would end in a NameError."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            return  # what a star brings cannot be known
    known = set(GIVEN_NAMES)
    for symbol in scopes.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            known.add(symbol.get_name())
    known |= {
        name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names
    }
    unknown = _global_names(scopes) - known
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in unknown]
    if uses:
        first = min(uses, key=lambda node: (node.lineno, node.col_offset))
        allowed = "a name that the file defines or imports"
        raise ConfigError(shown, f"line {first.lineno}", first.id, allowed)


def _global_names(scope: symtable.SymbolTable) -> set[str]:
    """Every name that some scope of the file looks up in the module itself."""
    names = set()
    for symbol in scope.get_symbols():
        # In a function called `top` symtable takes locals for globals too, as it knows the module's
        # scope by that name.
        looked_up_in_module = symbol.is_global() and not symbol.is_local()
        if symbol.is_referenced() and (scope.get_type() == "module" or looked_up_in_module):
            names.add(symbol.get_name())
    for child in scope.get_children():
        names |= _global_names(child)
    return names


def _check_imports(tree: ast.Module, module: str, shown: str) -> None:
    """Refuse imports at the top of the file that cannot work."""
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                _check_import(alias.name, None, statement.lineno, shown)
        elif isinstance(statement, ast.ImportFrom):
            source = import_source(module, statement)
            for alias in statement.names:
                _check_import(source, alias.name, statement.lineno, shown)


def _check_import(source: str, name: str | None, line: int, shown: str) -> None:
    key, written = f"line {line}", f"import of {source}"
    top_level = plugins.top_level(source)
    if top_level != PACKAGE:
        if not _is_installed(top_level):
            raise ConfigError(shown, key, written, "packages that are installed here")
        if top_level == shown.partition("/")[0] and not plugins.exists(source):
            raise ConfigError(shown, key, written, f"modules of {top_level}")
        return
    if module_file(source) is None:
        raise ConfigError(shown, key, written, "modules of rankwise, and files in your own folder")
    target = f"{source}.{name}"
    if name in (None, "*") or module_file(target) or lazily_imported(target) != target:
        return
    if name not in _defined_names(module_file(source)):
        raise ConfigError(shown, key, f"import of {name}", f"names that {source} defines")


def _is_installed(package: str) -> bool:
    """Whether Python finds a package, without importing it.

    Where torch itself is absent (planning on a login node), jobs run in another environment, and
    nothing is known of that.
    """
    if package in sys.modules or importlib.util.find_spec("torch") is None:
        return True
    return importlib.util.find_spec(package) is not None


def _defined_names(file: Path) -> set[str]:
    """Names that a module assigns, defines or imports at its top.

    `parse` would check the imports in turn, and those may be circular.
    """
    text = file.read_text(encoding="utf-8")
    scopes = symtable.symtable(text, str(file), "exec")
    return {
        symbol.get_name()
        for symbol in scopes.get_symbols()
        if symbol.is_assigned() or symbol.is_imported()
    }
