"""Facts of a source file, read once: the digest of its syntax tree, and its imports.

To parse some 300 files takes seconds, and every plan and every job needs them. So what was found is
kept in `results/.cache/sources.json` by the SHA-256 of the file's bytes. A file's time or place
does not matter, and another content is another entry: what is kept is never outdated. The kept file
has a digest of its own, and a name for the Python and for this module that wrote it; one that does
not fit is ignored, and written anew.

Standard library only: the Snakefile imports this module.
"""

import ast
import atexit
import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rankwise.core import paths
from rankwise.core.files import durable_write

KEPT = paths.CACHE / "sources.json"
MOST = 4000  # files; beyond it, those of this process alone are kept
DIGEST_LENGTH = 16  # hexadecimal digits
# Syntax trees.
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields that say nothing: `ctx` follows from where a node stands, `kind` is the prefix of a text.
IGNORED_FIELDS = ("ctx", "kind")

_found: dict[str, "SourceFacts"] = {}  # in this process, by the SHA-256 of the bytes


class Import(NamedTuple):
    """An import statement.

    Attributes:
        level: How many dots stand in front of a relative import's module.
        module: What names are imported from; empty for `import a, b` and `from . import a`.
        names: The names.
        is_from: Whether it is `from module import names`.
    """

    level: int
    module: str
    names: tuple[str, ...]
    is_from: bool


class SourceFacts(NamedTuple):
    """What a source file says.

    Attributes:
        digest: 16 hexadecimal digits of the syntax tree, without comments, docstrings and layout.
        imports: Every import statement, those inside functions too.
    """

    digest: str
    imports: tuple[Import, ...]


def facts(content: bytes, shown: str = "<unknown>") -> SourceFacts:
    """What a Python source says.

    Args:
        content: The bytes of the file.
        shown: The file's name in an error.

    Raises:
        SyntaxError: The source is no Python.
    """
    key = hashlib.sha256(content).hexdigest()
    known = _found.get(key) or _kept().get(key)
    if known is None:
        known = _read(ast.parse(content, filename=shown))
        if not _found:
            atexit.register(_keep)
        _found[key] = known
    return known


# A syntax tree -----------------------------------------------------------------------------------


def _read(tree: ast.Module) -> SourceFacts:
    text = json.dumps(_normalised(tree), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
    return SourceFacts(digest, tuple(_imports(tree)))


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield Import(0, "", tuple(alias.name for alias in node.names), is_from=False)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield Import(node.level, node.module or "", names, is_from=True)


def _normalised(node: object) -> object:
    """A syntax tree as nested lists, the same on every supported Python.

    Positions and docstrings are left out. So are empty fields, which differ between Pythons.
    """
    if isinstance(node, list):
        return [_normalised(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {}
    for name in node._fields:
        if name not in IGNORED_FIELDS:
            fields[name] = getattr(node, name, None)
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
        fields["body"] = fields["body"][1:]
    if isinstance(node, ast.JoinedStr):
        fields["values"] = [part for part in fields["values"] if not _is_empty_text(part)]
    kept = [name for name in sorted(fields) if fields[name] not in (None, [])]
    return [type(node).__name__, *([name, _normalised(fields[name])] for name in kept)]


def _is_empty_text(node: ast.AST) -> bool:
    """Whether a part of an f-string is empty: some releases of Python 3.12 add such parts."""
    return isinstance(node, ast.Constant) and node.value == ""


# On the disk -------------------------------------------------------------------------------------


@functools.cache
def _kept() -> dict[str, SourceFacts]:
    """The findings of earlier processes in this working folder."""
    try:
        kept = json.loads(KEPT.read_bytes())
        if kept["by"] != _reader() or kept["sha256"] != _sha256(kept["files"]):
            return {}
        return {key: _facts(value) for key, value in kept["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # none yet, or not whole


def _facts(value: list) -> SourceFacts:
    digest, imports = value
    return SourceFacts(
        digest,
        tuple(
            Import(level, module, tuple(names), is_from)
            for level, module, names, is_from in imports
        ),
    )


def _keep() -> None:
    """Write what this process found beside what was kept, as one whole file.

    A folder without results is no project, and gets none.
    """
    if not paths.RESULTS.is_dir():
        return
    _kept.cache_clear()  # another process may have written since
    files = {**_kept(), **_found}
    if len(files) > MOST:
        files = _found
    kept = {"by": _reader(), "sha256": _sha256(files), "files": files}
    # With a full or read-only disk, the next process reads the sources again.
    with suppress(OSError), durable_write(KEPT, sync=False) as part:
        part.write_text(json.dumps(kept), encoding="utf-8")


def _reader() -> str:
    """Names the Python and this module: another one may read a source differently."""
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{version} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"


def _sha256(files: dict[str, SourceFacts]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
