"""Which source files decide a job's result, and whether a process really ran them.

A digest covers the syntax tree without docstrings. A comment, a docstring or the layout changes
nothing, and the digest is the same on every supported Python. Pages, styles and scripts beside a
package's `__init__.py` are its sources too, letter by letter.

Standard library only: the Snakefile imports this module.
"""

import ast
import functools
import hashlib
import json
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
        f"{PACKAGE}.core.compare",
        f"{PACKAGE}.core.content",
        f"{PACKAGE}.core.documents",
        f"{PACKAGE}.core.provenance",
        f"{PACKAGE}.core.environment",
        f"{PACKAGE}.core.lock",
        f"{PACKAGE}.core.model_shapes",
        f"{PACKAGE}.core.paths",
        f"{PACKAGE}.core.progress",
        f"{PACKAGE}.core.requests",
        f"{PACKAGE}.core.settings",
        f"{PACKAGE}.core.store",
        f"{PACKAGE}.core.store_parts",
        f"{PACKAGE}.core.tracker",
        f"{PACKAGE}.models.check",
    }
)
DATA_SUFFIXES = (".css", ".html", ".js")
DIGEST_LENGTH = 16  # hexadecimal digits

# Syntax trees.
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields that say nothing: `ctx` follows from where a node stands, `kind` is the prefix of a text.
IGNORED_FIELDS = ("ctx", "kind")


class SourceChanged(RuntimeError):
    """A loaded source file is not the one that the workflow was planned with."""


# Digests ------------------------------------------------------------------------------------------


def digest(value: object) -> str:
    """16 hexadecimal digits of a JSON value, whatever the order of its keys.

    The value is brought into the form that it has after it was written to a file and read again:
    keys that are numbers become texts, and sort as texts.
    """
    return digest_of_read(json.loads(json.dumps(value)))


def digest_of_read(value: object) -> str:
    """As `digest`, at half the cost, for a value that was read from JSON: its keys are texts."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def code_digest(path: Path) -> str:
    """Digest of a file's syntax tree; comments, docstrings and layout do not count."""
    return digest_of_read(_normalised(_parse(path)))


def code_digest_now(path: Path) -> str:
    """As `code_digest`, or of the text of a data file, but read from the disk anew."""
    text = path.read_text(encoding="utf-8")
    return digest(text if path.suffix in DATA_SUFFIXES else _normalised(ast.parse(text)))


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


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


# Sources ------------------------------------------------------------------------------------------


@functools.cache
def code_digests(script: Path, modules: Iterable[str] = ()) -> dict[str, str]:
    """Digest of every source that a job executes, by the source's name.

    Args:
        script: The job's script.
        modules: Modules that the job loads by name, which no import statement shows; hashable.
    """
    roots = {*_imports(script, ""), *modules}
    names = sorted(set().union(*(source_closure(root) for root in roots)))
    digests = {name: code_digest(module_file(name)) for name in names}
    for name in names:
        for data_name, file in data_files(name).items():
            digests[data_name] = digest(file.read_text(encoding="utf-8"))
    return {**digests, f"{SCRIPT_DIR}/{script.name}": code_digest(script)}


@functools.cache
def source_closure(module: str) -> frozenset[str]:
    """Modules of this package that importing `module` executes, itself included.

    Found by following import statements, those inside functions too. Importing a module executes
    the packages that it lies in.
    """
    to_visit, closure = [module], set()
    while to_visit:
        name = lazily_imported(to_visit.pop())
        is_ours = name.split(".")[0] == PACKAGE and name not in EXEMPT
        file = module_file(name) if is_ours and name not in closure else None
        if file is None:  # or a name that is no module: a function imported from one
            continue
        closure.add(name)
        parent = name.rpartition(".")[0]
        package = name if file.name == "__init__.py" else parent
        to_visit += [*_imports(file, package), parent]
    return frozenset(closure)


@functools.cache
def _imports(path: Path, package: str) -> tuple[str, ...]:
    """Every name that a file may import as a module, also inside functions.

    `package` is the file's package, which resolves relative imports.
    """
    names = []
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += _imported_from(node, package)
    return tuple(names)


def _imported_from(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """The module of `from module import name`, and `module.name`, which may be a module too."""
    parts = package.split(".")
    parents = parts[: len(parts) - node.level + 1] if node.level else []
    base = ".".join([*parents, *([node.module] if node.module else [])])
    yield base
    for alias in node.names:
        yield f"{base}.{alias.name}"


def lazily_imported(name: str) -> str:
    """The module of an optimizer that is imported by its class: `rankwise.optim.AdamW`.

    `rankwise.optim` loads `rankwise.optim.adamw` when that class is asked for. Any other name is
    returned as it is.
    """
    package, _, class_name = name.rpartition(".")
    if package != f"{PACKAGE}.optim" or class_name == class_name.lower():
        return name
    for folder in (PACKAGE_DIR / "optim", own_folder("optim")):
        for file in folder.glob("*.py"):
            if file.stem.replace("_", "") == class_name.lower():
                return f"{package}.{file.stem}"
    return name


def data_files(module: str) -> dict[str, Path]:
    """The files of a package that are no modules, by name: `rankwise.report.html/page.css`."""
    file = module_file(module)
    if file is None or file.name != "__init__.py":
        return {}
    beside = sorted(file.parent.iterdir())
    return {f"{module}/{path.name}": path for path in beside if path.suffix in DATA_SUFFIXES}


def source_file(name: str) -> str:
    """The path of a source, by its name in requests.

    `rankwise.optim.adamw` is `src/rankwise/optim/adamw.py`; a method in the user's own folder is
    `methods/norms_only.py`.
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


# What a process has loaded ------------------------------------------------------------------------


def verify(code: dict[str, str], script: Path) -> None:
    """Refuse to go on unless every source of ours that this process has loaded is the planned one.

    Args:
        code: Source -> digest, as planned by `code_digests`.
        script: The job's script.

    Raises:
        SourceChanged: Names the first file that is not among the sources, or whose digest differs.
    """
    files = {**_loaded_files(), f"{SCRIPT_DIR}/{script.name}": script}
    for name, file in files.items():
        if name not in code:
            raise SourceChanged(
                f"{file}: loaded, but not declared as a source of this job ({name})"
            )
        if code[name] != code_digest_now(file):
            raise SourceChanged(
                f"{file}: changed since the workflow was planned; run snakemake again"
            )


def _loaded_files() -> dict[str, Path]:
    """Name -> file of every source of ours that this process has loaded.

    Data files of loaded packages are included.
    """
    loaded = [name for name in sys.modules if name.split(".")[0] == PACKAGE]
    files = {name: Path(sys.modules[name].__file__) for name in loaded if name not in EXEMPT}
    for name in loaded:
        files |= data_files(name)
    return files
