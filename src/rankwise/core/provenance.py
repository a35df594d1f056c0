"""Which source files decide a job's result, a digest of each, and whether a process really ran them.

A digest covers the syntax tree without docstrings, so a comment, a docstring or layout changes nothing, and it is the same
on every supported Python. Pages, styles and scripts beside a package's `__init__.py` are its sources too, to the letter.
Standard library only: the Snakefile imports this module.
"""

import ast
import functools
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rankwise.core.paths import module_file, own_folder

PACKAGE = "rankwise"
PACKAGE_DIR = Path(__file__).resolve().parents[1]
SCRIPT_DIR = "workflow_scripts"
# Bookkeeping that cannot change a number: never part of a job's sources.
EXEMPT = frozenset(
    {
        f"{PACKAGE}.core.provenance",
        f"{PACKAGE}.core.environment",
        f"{PACKAGE}.core.paths",
        f"{PACKAGE}.core.requests",
        f"{PACKAGE}.core.settings",
    }
)
DATA = (".css", ".html", ".js")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
UNSEEN = ("ctx", "kind")  # fields that follow from others, or say nothing


class SourceChanged(RuntimeError):
    """A loaded source is not the one that the workflow was planned with."""


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@functools.cache
def _imports(path: Path, package: str) -> tuple[str, ...]:
    """Every module that the file at `path` imports, also inside functions; `package` resolves relative imports."""
    return tuple(_imported(path, package))


def _imported(path: Path, package: str) -> Iterator[str]:
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def source_closure(module: str) -> frozenset[str]:
    """Modules of this package that importing `module` executes, itself included."""
    todo, found = [module], set()
    while todo:
        name = lazily_imported(todo.pop())
        if (
            name in found
            or name in EXEMPT
            or name.split(".")[0] != PACKAGE
            or not (file := module_file(name))
        ):
            continue
        found.add(name)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        todo += [*_imports(file, package), name.rpartition(".")[0]]
    return frozenset(found)


def lazily_imported(name: str) -> str:
    """`rankwise.optim.AdamW` -> `rankwise.optim.adamw`: the package loads an optimizer's file when its class is asked for."""
    package, _, class_name = name.rpartition(".")
    if package != f"{PACKAGE}.optim" or class_name == class_name.lower():
        return name
    for folder in (PACKAGE_DIR / "optim", own_folder("optim")):
        for file in folder.glob("*.py"):
            if file.stem.replace("_", "") == class_name.lower():
                return f"{package}.{file.stem}"
    return name


def _normalised(node: object) -> object:
    """The tree as nested lists: no docstrings, no positions, no empty fields (which differ between Pythons)."""
    if isinstance(node, list):
        return [_normalised(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: getattr(node, name, None) for name in node._fields if name not in UNSEEN}
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
        fields["body"] = fields["body"][1:]
    if isinstance(node, ast.JoinedStr):  # some releases of 3.12 add empty texts
        fields["values"] = [
            part
            for part in fields["values"]
            if not (isinstance(part, ast.Constant) and part.value == "")
        ]
    kept = {name: value for name, value in fields.items() if value not in (None, [])}
    return [type(node).__name__, *([name, _normalised(kept[name])] for name in sorted(kept))]


@functools.cache
def code_digest(path: Path) -> str:
    """16 hexadecimal digits of the file's syntax tree; comments, docstrings and layout do not count."""
    return _hexdigest(_normalised(_parse(path)))


def digest(value: object) -> str:
    """16 hexadecimal digits of a JSON value, whatever the order of its keys.

    The value is brought into the form that it has after it was written to a file and read again:
    keys that are numbers become texts, and sort as texts.
    """
    return _hexdigest(json.loads(json.dumps(value)))


def _hexdigest(value: object) -> str:
    """The digest of a value whose keys are texts."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def code_digests(script: Path, modules: Iterable[str] = ()) -> dict[str, str]:
    """Digest of every source that `script` executes, and of those it loads by name (`modules`)."""
    roots = {*_imports(script, ""), *modules}
    found = sorted(set().union(*(source_closure(root) for root in roots)))
    files = {name: code_digest(module_file(name)) for name in found}
    data = {
        name: digest(_text(file)) for module in found for name, file in data_files(module).items()
    }
    return {**files, **data, f"{SCRIPT_DIR}/{script.name}": code_digest(script)}


def data_files(module: str) -> dict[str, Path]:
    """Files of a package that are no modules, by name: `rankwise.report.html/page.css`."""
    file = module_file(module)
    beside = sorted(file.parent.iterdir()) if file and file.name == "__init__.py" else []
    return {f"{module}/{path.name}": path for path in beside if path.suffix in DATA}


def source_file(name: str) -> str:
    """Where a source lies, by its name in requests: `rankwise.optim.adamw` -> `src/rankwise/optim/adamw.py`.

    A method or optimizer in the user's own folder -> `methods/norms_only.py`.
    """
    module, _, data = name.partition("/")
    if module == SCRIPT_DIR:
        return name
    stem = Path("src", *module.split("."))
    if data:
        return str(stem / data)
    file = module_file(module)
    if file and not file.is_relative_to(PACKAGE_DIR):
        return str(file.relative_to(Path.cwd()))
    is_package = (PACKAGE_DIR.parents[1] / stem).is_dir()
    return str(stem / "__init__.py" if is_package else stem.with_suffix(".py"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def lock_digest(path: Path) -> str:
    """Digest of a lock file's pins: comments, order and layout do not count."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8")).replace("\\\n", " ")
    return digest(sorted(" ".join(line.split()) for line in text.splitlines() if line.strip()))


def verify(code: dict[str, str], script: Path) -> None:
    """Refuse to go on unless every loaded source of ours is declared in `code` and still has its digest.

    Raises:
        SourceChanged: names the first file that is undeclared or differs.
    """
    loaded = {name: module for name, module in sys.modules.items() if name.split(".")[0] == PACKAGE}
    files = {name: Path(module.__file__) for name, module in loaded.items() if name not in EXEMPT}
    files |= {name: file for module in loaded for name, file in data_files(module).items()}
    for name, file in {**files, f"{SCRIPT_DIR}/{script.name}": script}.items():
        if name not in code:
            raise SourceChanged(
                f"{file}: loaded, but not declared as a source of this job ({name})"
            )
        if code[name] != code_digest_now(file):
            raise SourceChanged(
                f"{file}: changed since the workflow was planned; run snakemake again"
            )


def code_digest_now(path: Path) -> str:
    """As `code_digest` (data: of its text), read afresh from the disk."""
    return (
        digest(_text(path))
        if path.suffix in DATA
        else digest(_normalised(ast.parse(path.read_text(encoding="utf-8"))))
    )
