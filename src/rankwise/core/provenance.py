"""Which source files decide a job's result, and whether a process really ran them.

A digest covers the syntax tree without docstrings (source_facts.py). A comment, a docstring or the
layout changes nothing, and the digest is the same on every supported Python. Pages, styles and
scripts beside a package's `__init__.py` are its sources too, letter by letter. A class of an
installed package brings the sources of that package, and the versions of the packages that these
import (plugins.py).

Standard library only: the Snakefile imports this module.
"""

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rankwise.core import plugins, source_facts
from rankwise.core.paths import WORKFLOW, module_file, own_folder

PACKAGE = "rankwise"
PACKAGE_DIR = Path(__file__).resolve().parents[1]
SCRIPT_DIR = "workflow_scripts"
LOCKS = WORKFLOW / "envs"
# Bookkeeping that cannot change a number: never part of a job's sources.
EXEMPT = frozenset(
    {
        f"{PACKAGE}.core.compare",
        f"{PACKAGE}.core.content",
        f"{PACKAGE}.core.documents",
        f"{PACKAGE}.core.provenance",
        f"{PACKAGE}.core.environment",
        f"{PACKAGE}.core.files",
        f"{PACKAGE}.core.kills",
        f"{PACKAGE}.core.lock",
        f"{PACKAGE}.core.model_shapes",
        f"{PACKAGE}.core.paths",
        f"{PACKAGE}.core.plugins",
        f"{PACKAGE}.core.process_names",
        f"{PACKAGE}.core.progress",
        f"{PACKAGE}.core.requests",
        f"{PACKAGE}.core.sealed",
        f"{PACKAGE}.core.settings",
        f"{PACKAGE}.core.sound",
        f"{PACKAGE}.core.source_facts",
        f"{PACKAGE}.core.store",
        f"{PACKAGE}.core.store_parts",
        f"{PACKAGE}.core.tracker",
        f"{PACKAGE}.models.check",
    }
)
DATA_SUFFIXES = (".css", ".html", ".js")
DIGEST_LENGTH = 16  # hexadecimal digits


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
    """Digest of a file's syntax tree; comments, docstrings and layout do not count.

    A compiled file has the digest of its bytes.
    """
    return _facts(path).digest


def code_digest_now(path: Path) -> str:
    """As `code_digest`, or of the text of a data file, but read from the disk anew."""
    if path.suffix in DATA_SUFFIXES:
        return digest(path.read_text(encoding="utf-8"))
    return _facts_now(path).digest


@functools.cache
def _facts(path: Path) -> source_facts.SourceFacts:
    return _facts_now(path)


def _facts_now(path: Path) -> source_facts.SourceFacts:
    """What a source says; a compiled file shows its bytes only."""
    if not plugins.has_source(path):
        return source_facts.SourceFacts(file_sha256(path)[:DIGEST_LENGTH], ())
    return source_facts.facts(path.read_bytes(), shown=str(path))


# Sources ------------------------------------------------------------------------------------------


@functools.cache
def _file_of(module: str, project: str) -> Path | None:  # noqa: ARG001 - own files lie in it
    """As `module_file`: planning asks for the same few hundred modules thousands of times."""
    return module_file(module)


def _file(module: str) -> Path | None:
    return _file_of(module, os.getcwd())  # noqa: PTH109 - asked very often


@functools.cache
def code_digests(script: Path, modules: Iterable[str] = ()) -> dict[str, str]:
    """Digest of every source that a job executes, by the source's name.

    Args:
        script: The job's script.
        modules: Modules that the job loads by name, which no import statement shows; hashable.

    Returns:
        Source -> digest; and `package NAME` -> version of the packages behind sources that are not
        ours, as far as no lock has them.
    """
    roots = {*_imports(script, ""), *modules}
    names = sorted(set().union(*(source_closure(root) for root in roots)))
    digests = {name: code_digest(_file(name)) for name in names}
    for name in names:
        for data_name, file in data_files(name).items():
            digests[data_name] = digest(file.read_text(encoding="utf-8"))
    digests |= _package_versions(names)
    return {**digests, f"{SCRIPT_DIR}/{script.name}": code_digest(script)}


@functools.cache
def source_closure(module: str) -> frozenset[str]:
    """Modules that importing `module` executes, itself included, as far as no version tells them.

    They are those of this package and, for a module of a user's or of an installed package, those
    of its own package and of packages without a version. Found by following import statements,
    those inside functions too. Importing a module executes the packages that it lies in.
    """
    to_visit, closure, seen = [module], set(), set()
    while to_visit:
        name = lazily_imported(to_visit.pop())
        is_new = name not in seen and name not in EXEMPT
        seen.add(name)
        file = _file(name) if is_new and _is_followed(name, module) else None
        if file is None:  # or a name that is no module: a function imported from one
            continue
        closure.add(name)
        parent = name.rpartition(".")[0]
        package = name if file.stem == "__init__" else parent
        to_visit += [*_followed_imports(file, package), parent]
    return frozenset(closure)


def _is_followed(name: str, root: str) -> bool:
    """Whether the sources behind a name count, and not a version, for the module `root`."""
    top = plugins.top_level(name)
    if top == PACKAGE:
        return True
    if not top or plugins.is_covered(top, LOCKS):
        return False
    return top == plugins.top_level(root) or not plugins.has_version(top)


def _followed_imports(file: Path, package: str) -> list[str]:
    """What a file imports; of a file of this package what it imports of this package alone."""
    names = _imports(file, package)
    if file.is_relative_to(PACKAGE_DIR):  # a lock covers everything else
        return [name for name in names if plugins.top_level(name) == PACKAGE]
    return list(names)


def _package_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that modules of users and installed packages lie in or import.

    Args:
        names: All sources of a job.
    """
    tops, compiled = set(), set()
    for name in names:
        file = _file(name)
        if file.is_relative_to(PACKAGE_DIR):
            continue
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        tops |= {plugins.top_level(found) for found in (name, *_imports(file, package))}
        if not plugins.has_source(file):
            compiled.add(plugins.top_level(name))
    outside = {top for top in tops - {PACKAGE, ""} if not plugins.is_covered(top, LOCKS)}
    return plugins.versions(outside, compiled, LOCKS) if outside else {}


@functools.cache
def _imports(path: Path, package: str) -> tuple[str, ...]:
    """Every name that a file may import as a module, also inside functions.

    `package` is the file's package, which resolves relative imports. A compiled file shows none.
    """
    names = []
    for found in _facts(path).imports:
        names += _imported_from(found, package) if found.is_from else found.names
    return tuple(names)


def _imported_from(found: source_facts.Import, package: str) -> Iterator[str]:
    """The module of `from module import name`, and `module.name`, which may be a module too."""
    parts = package.split(".")
    parents = parts[: len(parts) - found.level + 1] if found.level else []
    base = ".".join([*parents, *([found.module] if found.module else [])])
    yield base
    for name in found.names:
        yield f"{base}.{name}"


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
    file = _file(module)
    if file is None or file.name != "__init__.py":
        return {}
    beside = sorted(file.parent.iterdir())
    return {f"{module}/{path.name}": path for path in beside if path.suffix in DATA_SUFFIXES}


def source_file(name: str) -> str:
    """The path of a source, by its name in requests.

    `rankwise.optim.adamw` is `src/rankwise/optim/adamw.py`; a method in the user's own folder is
    `methods/norms_only.py`. A module of another package is named from that package on; a package's
    version (`package NAME`) is no file, and keeps its name.
    """
    module, _, data = name.partition("/")
    if module == SCRIPT_DIR or name.startswith(plugins.PREFIX):
        return name
    if plugins.top_level(module) != PACKAGE:
        return _source_of_package(module, data)
    stem = Path("src", *module.split("."))
    if data:
        return str(stem / data)
    file = module_file(module)
    if file and not file.is_relative_to(PACKAGE_DIR):
        return str(file.relative_to(Path.cwd()))
    is_package = (PACKAGE_DIR.parents[1] / stem).is_dir()
    return str(stem / "__init__.py" if is_package else stem.with_suffix(".py"))


def _source_of_package(module: str, data: str) -> str:
    """`lion_pack/lion.py`: a source of an installed package, wherever that lies."""
    stem, file = Path(*module.split(".")), module_file(module)
    is_package = file is not None and file.stem == "__init__"
    if data:
        return str(stem / data)
    suffix = file.suffix if file else plugins.SOURCE
    return str(stem / f"__init__{suffix}" if is_package else f"{stem}{suffix}")


def shown_digest(shown: str, root: Path, planned: str) -> str | None:
    """The digest that a source has now; None if it is gone. A package has its version.

    Args:
        shown: The source as `source_file` names it.
        root: The project's folder.
        planned: The digest that it had.
    """
    if shown.startswith(plugins.PREFIX):
        return plugins.installed_version(shown, planned)
    file = root / shown
    if not file.is_file():
        parts = Path(shown).with_suffix("").parts
        file = module_file(".".join(part for part in parts if part != "__init__"))
    return code_digest(file) if file and file.is_file() else None


# What a process has loaded ------------------------------------------------------------------------


def verify(code: dict[str, str], script: Path) -> None:
    """Refuse to go on unless every source of ours that this process has loaded is the planned one.

    Args:
        code: Source -> digest, as planned by `code_digests`.
        script: The job's script.

    Raises:
        SourceChanged: Names the first file that is not among the sources, or whose digest differs.
    """
    files = {**_loaded_files(code), f"{SCRIPT_DIR}/{script.name}": script}
    for name, file in files.items():
        if name not in code:
            raise SourceChanged(
                f"{file}: loaded, but not declared as a source of this job ({name})"
            )
        if code[name] != code_digest_now(file):
            raise SourceChanged(
                f"{file}: changed since the workflow was planned; run snakemake again"
            )
    for name, version in code.items():
        if name.startswith(plugins.PREFIX) and plugins.installed_version(name, version) != version:
            raise SourceChanged(
                f"{name}: version {plugins.installed_version(name, version)}, planned with "
                f"{version}; run snakemake again"
            )


def _loaded_files(code: dict[str, str]) -> dict[str, Path]:
    """Name -> file of every loaded source of ours, and of the packages that `code` has sources of.

    Data files of loaded packages are included.
    """
    tops = {PACKAGE}
    for name in code:
        if "/" not in name and not name.startswith(plugins.PREFIX):
            tops.add(plugins.top_level(name))
    files = {}
    for name, module in list(sys.modules.items()):
        if plugins.top_level(name) in tops and getattr(module, "__file__", None):
            if name not in EXEMPT:
                files[name] = Path(module.__file__)
            files |= data_files(name)
    return files
