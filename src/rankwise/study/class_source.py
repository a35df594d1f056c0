"""The class of a method or optimizer and its base classes, read from source.

Importing them would import torch, which takes seconds and may be absent where a study is planned.

A module under methods/ or optim/ holds one class named like the file (`head_only.py` ->
`HeadOnly`); a class of an installed package is named itself (`lion_pack.lion:Lion`). Base classes
are followed through imports: those of a file of Rankwise as far as they are classes of `rankwise`,
those of a user's file or of an installed package wherever their source is (torch.optim.SGD).

Every mistake that the source shows is a ConfigError of one sentence, so that planning a study says
it before any job starts.
"""

import ast
import functools
from dataclasses import dataclass

from rankwise.core import plugins
from rankwise.core.config import ConfigError
from rankwise.core.paths import module_file
from rankwise.core.provenance import PACKAGE, PACKAGE_DIR, lazily_imported, source_file
from rankwise.study.module_source import file_of, import_source, imports, parse, statements


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

    @property
    def place(self) -> tuple[str, str]:
        """Module and name, which tell it from every other class."""
        return self.module, self.name

    @property
    def is_shipped(self) -> bool:
        """Whether it is Rankwise's own, not a user's or an installed package's."""
        file = file_of(self.module)
        return file is not None and file.is_relative_to(PACKAGE_DIR)


def main_class(module: str) -> ClassSource:
    """The class of a file, named like it whatever the case and without underscores, or by name.

    Args:
        module: `rankwise.optim.adamw`, or `package.module:Class`.

    Raises:
        ConfigError: the file is not valid Python, uses or imports a name that does not exist, or
        has no such class.
    """
    if plugins.is_reference(module):
        owner, _, name = module.partition(plugins.SEPARATOR)
        found = find_class(owner, name)
        if found is None:
            raise ConfigError(source_file(owner), "class", name, public_names(owner))
        return found
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


def public_names(module: str) -> list[str]:
    """The names that may be classes, of those that a module defines or imports."""
    names = {*imports(module), *(statement.name for statement in _classes(module))}
    return sorted(name for name in names if name[:1].isupper())


def _classes(module: str) -> list[ast.ClassDef]:
    """The class statements at the top of a module, branches of `if` and `try` included."""
    return [node for node in statements(parse(module)) if isinstance(node, ast.ClassDef)]


@functools.cache
def lineage(module: str) -> tuple[ClassSource, ...]:
    """The main class of `module` and its base classes, nearest first.

    Depth first and left to right; a class that is reached twice keeps its last place, as in
    Python's own order. Bases of Rankwise's own classes are followed within rankwise alone.

    Raises:
        ConfigError: a file on the way has a mistake, or a base class does not exist.
    """
    classes = _with_bases(main_class(module))
    last_place = {cls.place: place for place, cls in enumerate(classes)}
    return tuple(cls for place, cls in enumerate(classes) if last_place[cls.place] == place)


def has_unread_base(module: str) -> bool:
    """Whether some class of the lineage has a base class whose source is not read."""
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
        The base class; None if its source is not read.

    Raises:
        ConfigError: it should be a class of rankwise, and there is none of this name.
    """
    name = ast.unparse(base)
    if cls.is_shipped and not _is_ours(imports(cls.module).get(name.partition(".")[0])):
        return _own_class(cls.module, name, cls.node.lineno)
    return find_class(cls.module, name, above_line=cls.node.lineno)


def _is_ours(imported: str | None) -> bool:
    return imported is not None and plugins.top_level(imported) == PACKAGE


def _own_class(module: str, name: str, above_line: int | None) -> ClassSource | None:
    """The class that a module itself defines, above a line of it."""
    for statement in _classes(module):
        if above_line is not None and statement.lineno >= above_line:
            break
        if statement.name == name:
            return ClassSource(module, statement)
    return None


def find_class(
    module: str, name: str, above_line: int | None = None, seen: frozenset = frozenset()
) -> ClassSource | None:
    """The class that `name` (`Lora`, `lora.Lora`) means inside `module`, above a line of it.

    Args:
        module: its file exists and has source.
        name: as the module writes it.
        above_line: a class of the module below it is not meant; None for any place.
        seen: modules and names on the way here, for packages that import each other in a circle.
    """
    if (module, name) in seen:
        return None
    seen |= {(module, name)}
    own = _own_class(module, name, above_line)
    if own:
        return own
    first, _, rest = name.partition(".")
    imported = imports(module).get(first)
    if imported is None:
        starred = (find_class(source, name, seen=seen) for source in _star_imports(module))
        return next((found for found in starred if found), None)
    target = f"{imported}.{rest}" if rest else imported
    if plugins.top_level(target) != PACKAGE:
        owner, _, class_name = target.rpartition(".")
        return find_class(owner, class_name, seen=seen) if _is_readable(owner) else None
    owner, _, class_name = target.rpartition(".")
    if lazily_imported(target) != target:  # rankwise.optim.AdamW stands in rankwise.optim.adamw
        owner = lazily_imported(target)
    found = find_class(owner, class_name, seen=seen) if module_file(owner) else None
    if found is None:
        raise ConfigError(
            source_file(module), "base class", name, f"classes that {owner} defines or imports"
        )
    return found


def _is_readable(module: str) -> bool:
    """Whether a module of another package has a source."""
    file = module_file(module) if module else None
    return file is not None and plugins.has_source(file)


def _star_imports(module: str) -> list[str]:
    """The readable modules of other packages of which a module imports every name."""
    found = []
    for statement in statements(parse(module)):
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            found.append(import_source(module, statement))
    return [source for source in found if _is_readable(source)]
