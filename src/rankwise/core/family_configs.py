"""The keys of each family's configuration class in the installed transformers, read from source.

Importing transformers takes seconds, and planning may run where it is not installed. Its
configuration classes are dataclasses: their annotated names are the keys, `attribute_map` has
other names for some, and a few older keys are taken out of `kwargs`. transformers keeps a key that
it does not know, and uses a default in its place, so a misspelt one would build another model.

Standard library only.
"""

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BASES = ("configuration_utils.py", "modeling_rope_utils.py")
OWN_NAMES = ("PreTrainedConfig", "RotaryEmbeddingConfigMixin")  # of the classes in BASES

# Methods of a configuration that are given what its constructor was given.
READS_KWARGS = ("__init__", "__post_init__", "convert_rope_params_to_dict")


@dataclass
class Keys:
    """What a family's configuration may be made of.

    Attributes:
        annotations: Key -> its annotation, as the source has it.
        aliases: Common name (`hidden_size`) -> the family's name (`dim`).
        older: Keys that are taken over from older configurations.
        folder: The folder of the family's sources.
    """

    annotations: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    older: set[str] = field(default_factory=set)
    folder: Path = Path()

    def knows(self, key: str) -> bool:
        """Whether the family reads a key."""
        names = (self.annotations, self.aliases, self.aliases.values(), self.older)
        return any(key in known for known in names) or self._is_read(key)

    def _is_read(self, key: str) -> bool:
        """Whether a model reads a key that its configuration lacks, as Qwen3-MoE does."""
        reads = re.compile(rf'config\.{re.escape(key)}\b|getattr\([\w.]*config, "{re.escape(key)}"')
        files = self.folder.glob("modeling_*.py")
        return any(reads.search(file.read_text(encoding="utf-8")) for file in files)

    def own(self, key: str) -> str:
        """The family's name of a key."""
        return self.aliases.get(key, key)


def _package() -> Path | None:
    spec = importlib.util.find_spec("transformers")
    return Path(spec.origin).parent if spec and spec.origin else None


@functools.cache
def class_names() -> dict[str, str]:
    """Every model_type of the installed transformers -> its class; none without transformers."""
    folder = _package()
    found: dict[str, str] = {}
    for file in ("auto_mappings.py", "configuration_auto.py"):
        path = folder / "models/auto" / file if folder else None
        if path and path.is_file():
            text = path.read_text(encoding="utf-8")
            found |= dict(re.findall(r'"([\w.-]+)"[,:]\s*"(\w+Config)"', text))
    return found


@functools.cache
def keys(family: str) -> Keys | None:
    """The keys of a family; None without transformers, or where its class is not found.

    Args:
        family: A model_type.
    """
    folder, name = _package(), class_names().get(family)
    file = _file_of(folder, family, name) if folder and name else None
    if file is None:
        return None
    found = Keys(folder=file.parent)
    for base in BASES:
        if (folder / base).is_file():
            for node in _classes(folder / base).values():
                if node.name in OWN_NAMES:
                    _add(found, node)
    return found if _add_class(found, folder, file, name) else None


def _file_of(folder: Path, family: str, name: str) -> Path | None:
    """The file that defines a configuration class: in the family's own folder, or in another."""
    own = (folder / "models" / family.replace("-", "_")).glob("configuration_*.py")
    others = (folder / "models").glob("*/configuration_*.py")
    for file in (*sorted(own), *sorted(others)):
        if f"class {name}(" in file.read_text(encoding="utf-8"):
            return file
    return None


def _add_class(found: Keys, folder: Path, file: Path, name: str) -> bool:
    """Add the keys of a class and of the bases that it has among the configurations."""
    node = _classes(file).get(name)
    if node is None:
        return False
    for base in map(ast.unparse, node.bases):
        if base in OWN_NAMES or not base.endswith("Config"):
            continue
        other = file if base in _classes(file) else _file_of(folder, "", base)
        if other is None or not _add_class(found, folder, other, base):
            return False
    _add(found, node)
    return True


@functools.cache
def _classes(file: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _add(found: Keys, node: ast.ClassDef) -> None:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign):
            text = ast.unparse(statement.annotation)
            if not text.startswith("ClassVar"):
                found.annotations[ast.unparse(statement.target)] = text
        elif (
            isinstance(statement, ast.Assign)
            and ast.unparse(statement.targets[0]) == "attribute_map"
        ):
            found.aliases |= ast.literal_eval(statement.value)
        elif isinstance(statement, ast.FunctionDef) and statement.name in READS_KWARGS:
            found.older |= set(_taken_from_kwargs(statement))


def _taken_from_kwargs(node: ast.FunctionDef) -> Iterator[str]:
    """The arguments by name, and x of `kwargs.pop("x")`, `kwargs.get("x")` and `"x" in kwargs`."""
    for argument in (*node.args.args[1:], *node.args.kwonlyargs):
        yield argument.arg
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and ast.unparse(part.func) in ("kwargs.pop", "kwargs.get"):
            yield from (arg.value for arg in part.args[:1] if isinstance(arg, ast.Constant))
        elif isinstance(part, ast.Compare) and ast.unparse(part.comparators[-1]) == "kwargs":
            yield from (one.value for one in [part.left] if isinstance(one, ast.Constant))
