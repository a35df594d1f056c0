"""Methods and optimizers of installed packages: `module: package.module:Class` in an entry.

Such a class is found without importing it, because planning must not load torch. What decides its
results is

- the sources of its own package, as far as imports reach them, as for our own files;
- the sources of other packages that have no version to go by: folders on the path, editable
  installs;
- the versions of all other packages that these sources import, and of what those require.

The standard library and the packages of the job's lock are not among them: the request names the
lock. Standard library only: the Snakefile imports this module.
"""

import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

SEPARATOR = ":"
PREFIX = "package "  # of the name of a package's version among the sources of a request
SOURCE = ".py"
LOCK = "cpu.lock"  # gpu.lock has all of its packages
DIGEST_LENGTH = 16  # hexadecimal digits


# Names --------------------------------------------------------------------------------------------


def is_reference(module: str) -> bool:
    """Whether an entry's `module` names a class of a package, not a file in methods/ or optim/."""
    return SEPARATOR in module


def source_name(folder: str, module: str) -> str:
    """What planning reads of an entry's module: `rankwise.optim.adamw`, `package.module:Class`.

    Args:
        folder: methods or optim.
        module: as the entry has it.
    """
    return module if is_reference(module) else f"rankwise.{folder}.{module}"


def module_name(name: str) -> str:
    """The dotted name of a module, without the class that may stand behind it."""
    return name.partition(SEPARATOR)[0]


def top_level(module: str) -> str:
    """The package of a dotted name: `torch` of `torch.optim`."""
    return module.partition(".")[0]


# Files --------------------------------------------------------------------------------------------


@functools.cache
def find(module: str) -> Path | None:
    """The file of an installed module, found without importing anything.

    Returns:
        Its source, or its compiled file where there is no source; None if there is no such module,
        or it has no file (built in, a folder without `__init__.py`).
    """
    spec = _spec(module)
    if spec is None or not spec.has_location or not spec.origin:
        return None
    return Path(spec.origin)


def exists(module: str) -> bool:
    """Whether Python would find a module."""
    return _spec(module) is not None


def _spec(module: str) -> ModuleSpec | None:
    top, *rest = module.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module that was put in place by hand
        return None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec


def has_source(file: Path) -> bool:
    """Whether a module's file is Python text, not compiled."""
    return file.suffix == SOURCE


# Packages -----------------------------------------------------------------------------------------


def is_covered(top: str, locks: Path) -> bool:
    """Whether the standard library or a job's lock decides what a package does.

    Args:
        top: the name by which it is imported.
        locks: the folder with the workflow's locks.
    """
    if top in sys.stdlib_module_names or _canonical(top) in _locked(locks):
        return True
    names = distributions_of(top)
    return bool(names) and all(name in _locked(locks) for name in names)


def has_version(top: str) -> bool:
    """Whether a package's version says which sources it has.

    A folder on the path has none, and that of an editable install stays while its sources change.
    """
    names = distributions_of(top)
    return bool(names) and not any(_is_editable(name) for name in names)


def distributions_of(top: str) -> tuple[str, ...]:
    """The installed distributions that an importable package comes from."""
    return tuple(sorted({_canonical(name) for name in _by_import().get(top, ())}))


def versions(tops: Iterable[str], compiled: Iterable[str], locks: Path) -> dict[str, str]:
    """The packages behind sources: `package NAME` -> version.

    Args:
        tops: importable packages.
        compiled: the packages with a loaded module that has no source; with their version
            stands the digest of their list of files.
        locks: the folder with the workflow's locks.

    Returns:
        Packages that a lock covers are left out; what a package requires is there as well.
    """
    with_files = {name for top in compiled for name in distributions_of(top)}
    to_visit = [name for top in tops for name in distributions_of(top)]
    found: dict[str, str] = {}
    while to_visit:
        name = to_visit.pop()
        if f"{PREFIX}{name}" in found or name in _locked(locks) or name == "rankwise":
            continue
        version = _version(name)
        if version is None:
            continue  # an optional requirement that is not installed
        if name in with_files:
            version += f" {_files_digest(name)}"
        found[f"{PREFIX}{name}"] = version
        to_visit += _requirements(name)
    return dict(sorted(found.items()))


def installed_version(name: str, planned: str = "") -> str:
    """The version now of a package of a request, in the form in which the request has it.

    Args:
        name: `package NAME`.
        planned: what the request has, which may have the digest of the package's files as well.
    """
    distribution = name.removeprefix(PREFIX)
    version = _version(distribution)
    if version is None:
        return "none"
    return f"{version} {_files_digest(distribution)}" if " " in planned else version


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements(name: str) -> list[str]:
    """The requirements of a distribution, without those of its extras."""
    names = []
    for requirement in metadata.requires(name) or ():
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match and not re.search(r"\bextra\s*==", requirement):
            names.append(_canonical(match[0]))
    return names


def _files_digest(name: str) -> str:
    """The digest of a distribution's RECORD, which has the digest of each of its files."""
    text = metadata.distribution(name).read_text("RECORD") or ""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _is_editable(name: str) -> bool:
    text = metadata.distribution(name).read_text("direct_url.json")
    return bool(text) and json.loads(text).get("dir_info", {}).get("editable", False)


@functools.cache
def _by_import() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


@functools.cache
def _locked(locks: Path) -> frozenset[str]:
    """The packages that the lock of every job pins."""
    if not (locks / LOCK).is_file():
        return frozenset()
    text = (locks / LOCK).read_text(encoding="utf-8")
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", text, flags=re.MULTILINE)
    return frozenset(_canonical(name) for name in names)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
