"""The class of a method or optimizer and its base classes, read from source.

Importing them would import torch, which takes seconds and may be absent where a study is planned.

A module under methods/ or optim/ holds one class named like the file (`head_only.py` ->
`HeadOnly`). Its base classes are followed through imports as far as they are classes of `rankwise`,
which includes the user's own files beside the packaged ones. Base classes from elsewhere
(torch.optim.SGD) are not read.

Every mistake that the source shows is a ConfigError of one sentence, so that planning a study says
it before any job starts.
"""

import ast
import builtins
import functools
import importlib.util
import symtable
import sys
from dataclasses import dataclass
from pathlib import Path

from rankwise.core.config import ConfigError
from rankwise.core.paths import module_file
from rankwise.core.provenance import PACKAGE, lazily_imported, source_file

# Names that Python itself gives to a module or to a class body.
GIVEN_NAMES = frozenset({*dir(builtins), "__file__", "__path__", "__module__", "__qualname__"})


@dataclass(frozen=True)
class ClassSource:
    """One class statement, and the module that it stands in (`rankwise.methods.lora`)."""

    module: str
    node: ast.ClassDef

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def file(self) -> str:
        """The module's file, as messages name it."""
        return source_file(self.module)


def main_class(module: str) -> ClassSource:
    """The class named like its file, whatever the case and without underscores.

    Raises:
        ConfigError: the file is not valid Python, uses or imports a name that does not exist, or
        has no such class.
    """
    tree = parse(module)
    wanted = module.rpartition(".")[2].replace("_", "")
    names = []
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            names.append(statement.name)
            if statement.name.lower() == wanted:
                return ClassSource(module, statement)
    expected = "".join(part.capitalize() for part in module.rpartition(".")[2].split("_"))
    raise ConfigError(
        source_file(module),
        "classes",
        ", ".join(names) or "none",
        f"one class named like the file: {expected}, in upper or lower case",
    )


@functools.cache
def lineage(module: str) -> tuple[ClassSource, ...]:
    """The main class of `module` and its base classes within rankwise, nearest first.

    Depth first and left to right; a class that is reached twice keeps its last place, as in
    Python's own order.

    Raises:
        ConfigError: a file on the way has a mistake, or a base class does not exist.
    """
    classes = _with_bases(main_class(module))
    last_place = {(cls.module, cls.name): place for place, cls in enumerate(classes)}
    return tuple(
        cls for place, cls in enumerate(classes) if last_place[cls.module, cls.name] == place
    )


def has_foreign_base(module: str) -> bool:
    """Whether some class of the lineage has a base class from outside rankwise."""
    return any(base_class(cls, base) is None for cls in lineage(module) for base in cls.node.bases)


def _with_bases(cls: ClassSource) -> list[ClassSource]:
    classes = [cls]
    for base in cls.node.bases:
        found = base_class(cls, base)
        if found is not None:
            classes += _with_bases(found)
    return classes


def base_class(cls: ClassSource, base: ast.expr) -> ClassSource | None:
    """The class that a base in `class Name(base)` means.

    Args:
        cls: the class whose statement has the base.
        base: the expression between the parentheses: `Lora`, `lora.Lora`.

    Returns:
        The base class; None if it comes from outside rankwise.

    Raises:
        ConfigError: it should be a class of rankwise, and there is none of this name.
    """
    return _find_class(cls.module, ast.unparse(base), above_line=cls.node.lineno)


def _find_class(module: str, name: str, above_line: int | None = None) -> ClassSource | None:
    """The class that `name` (`Lora`, `lora.Lora`) means inside `module`, above a line of it."""
    for statement in parse(module).body:
        if above_line is not None and statement.lineno >= above_line:
            break
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return ClassSource(module, statement)
    first, _, rest = name.partition(".")
    imported = imports(module).get(first)
    if imported is None:
        return None
    target = f"{imported}.{rest}" if rest else imported
    if target.partition(".")[0] != PACKAGE:
        return None
    owner, _, class_name = target.rpartition(".")
    if lazily_imported(target) != target:  # rankwise.optim.AdamW stands in rankwise.optim.adamw
        owner = lazily_imported(target)
    found = _find_class(owner, class_name) if module_file(owner) else None
    if found is None:
        raise ConfigError(
            source_file(module), "base class", name, f"classes that {owner} defines or imports"
        )
    return found


@functools.cache
def imports(module: str) -> dict[str, str]:
    """The imports of `module` by local name: {"Lora": "rankwise.methods.lora.Lora"}."""
    names = {}
    for statement in parse(module).body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                top_level = alias.name.partition(".")[0]
                names[alias.asname or top_level] = alias.name if alias.asname else top_level
        elif isinstance(statement, ast.ImportFrom):
            source = _import_source(module, statement)
            for alias in statement.names:
                names[alias.asname or alias.name] = f"{source}.{alias.name}"
    return names


def _import_source(module: str, statement: ast.ImportFrom) -> str:
    """The absolute name of the module that a `from ... import` statement reads."""
    if not statement.level:
        return statement.module or ""
    parents = module.split(".")[: -statement.level]
    return ".".join([*parents, *([statement.module] if statement.module else [])])


# Mistakes in a file -------------------------------------------------------------------------------


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


@functools.cache
def _parse(file: Path, module: str) -> ast.Module:
    shown, text = source_file(module), file.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text, filename=shown)
        scopes = symtable.symtable(text, shown, "exec")
    except SyntaxError as error:
        raise ConfigError(shown, f"line {error.lineno}", error.msg, "valid Python") from None
    _check_names(tree, scopes, shown)
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
            source = _import_source(module, statement)
            for alias in statement.names:
                _check_import(source, alias.name, statement.lineno, shown)


def _check_import(source: str, name: str | None, line: int, shown: str) -> None:
    key, written = f"line {line}", f"import of {source}"
    top_level = source.partition(".")[0]
    if top_level != PACKAGE:
        if not _is_installed(top_level):
            raise ConfigError(shown, key, written, "packages that are installed here")
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
