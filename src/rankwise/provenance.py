"""Which source files decide a job's result, a digest of each, and whether a process really ran them.

A digest covers the syntax tree without docstrings, so a comment, a docstring or layout changes nothing, and it is the same
on every supported Python. Pages, styles and scripts beside a package's `__init__.py` are its sources too, to the letter.
Standard library only: the Snakefile imports this module.
"""

import ast
import functools
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

PACKAGE = "rankwise"
PACKAGE_DIR = Path(__file__).resolve().parent
SCRIPT_DIR = "workflow_scripts"
# Bookkeeping that cannot change a number: never part of a job's sources.
EXEMPT = frozenset({f"{PACKAGE}.provenance"})
DATA = (".css", ".html", ".js")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
UNSEEN = ("ctx", "kind")  # fields that follow from others, or say nothing
CPUINFO = Path("/proc/cpuinfo")


OWN = "RANKWISE_ENVIRONMENT"  # set to RECORDED where the environment is a machine's own
RECORDED = "recorded"


class SourceChanged(RuntimeError):
    """A loaded source is not the one that the workflow was planned with."""


class EnvironmentDiffers(RuntimeError):
    """A package is not installed in the version that the job's lock has."""


def _module_file(module: str) -> Path | None:
    stem = PACKAGE_DIR.parent.joinpath(*module.split("."))
    return next((f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()), None)


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
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def source_closure(module: str) -> frozenset[str]:
    """Modules of this package that importing `module` executes, itself included."""
    todo, found = [module], set()
    while todo:
        name = todo.pop()
        if name in found or name in EXEMPT or name.split(".")[0] != PACKAGE or not (file := _module_file(name)):
            continue
        found.add(name)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        todo += [*_imports(file, package), name.rpartition(".")[0]]
    return frozenset(found)


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
        fields["values"] = [part for part in fields["values"] if not (isinstance(part, ast.Constant) and part.value == "")]
    kept = {name: value for name, value in fields.items() if value not in (None, [])}
    return [type(node).__name__, *([name, _normalised(kept[name])] for name in sorted(kept))]


@functools.cache
def code_digest(path: Path) -> str:
    """16 hexadecimal digits of the file's syntax tree; comments, docstrings and layout do not count."""
    return digest(_normalised(_parse(path)))


def digest(value: object) -> str:
    """16 hexadecimal digits of a JSON value, whatever the order of its keys."""
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
    files = {name: code_digest(_module_file(name)) for name in found}
    data = {name: digest(_text(file)) for module in found for name, file in data_files(module).items()}
    return {**files, **data, f"{SCRIPT_DIR}/{script.name}": code_digest(script)}


def data_files(module: str) -> dict[str, Path]:
    """Files of a package that are no modules, by name: `rankwise.report.html/page.css`."""
    file = _module_file(module)
    beside = sorted(file.parent.iterdir()) if file and file.name == "__init__.py" else []
    return {f"{module}/{path.name}": path for path in beside if path.suffix in DATA}


def source_file(name: str) -> str:
    """`rankwise.optim.adamw` -> `src/rankwise/optim/adamw.py`: where a source lies, by its name in requests."""
    module, _, data = name.partition("/")
    if module == SCRIPT_DIR:
        return name
    stem = Path("src", *module.split("."))
    if data:
        return str(stem / data)
    return str(stem / "__init__.py" if (PACKAGE_DIR.parents[1] / stem).is_dir() else stem.with_suffix(".py"))


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
            raise SourceChanged(f"{file}: loaded, but not declared as a source of this job ({name})")
        if code[name] != code_digest_now(file):
            raise SourceChanged(f"{file}: changed since the workflow was planned; run snakemake again")


def code_digest_now(path: Path) -> str:
    """As `code_digest` (data: of its text), read afresh from the disk."""
    return digest(_text(path)) if path.suffix in DATA else digest(_normalised(ast.parse(path.read_text(encoding="utf-8"))))


def locked_versions(path: Path) -> dict[str, str]:
    """Name -> version of every pin of a lock file."""
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE))


def differences(lock: Path) -> dict[str, str]:
    """Each package of a lock that is not installed, or in another version; a build's name (+cpu, +cu130) does not count."""
    installed = {name: _installed(name) for name in locked_versions(lock)}
    return {
        name: f"{installed[name] or 'not installed'}, locked {version}"
        for name, version in locked_versions(lock).items()
        if (installed[name] or "").split("+")[0] != version
    }


def refusal(lock: Path) -> str | None:
    """Why this environment may not do a job of this lock, in a sentence; None if it may.

    RANKWISE_ENVIRONMENT=recorded lets any environment: results record what differs.
    """
    if (own := os.environ.get(OWN, "")) not in ("", RECORDED):
        return f"{OWN}: got {own!r}, allowed: {RECORDED}, or not set"
    found = [] if own else [f"{name} {how}" for name, how in differences(lock).items()]
    file = f"{lock.parent.name}/{lock.name}"
    return (
        f"{file}: {len(found)} installed otherwise than locked: {'; '.join(found[:3])}{'; ...' if found[3:] else ''}; "
        f"allowed: what the lock has (pip install -r {file}), or {OWN}={RECORDED}, and results record what differs"
        if found
        else None
    )


def verify_environment(planned: dict[str, str], root: Path) -> None:
    """Refuse to work when the lock is not the `planned` one, or when its packages are not what is installed.

    Raises:
        SourceChanged: the lock file has changed.
        EnvironmentDiffers: names the packages, the versions installed and those locked.
    """
    lock = root / planned["lock"]
    if lock_digest(lock) != planned["digest"]:
        raise SourceChanged(f"{lock}: changed since the workflow was planned; run snakemake again")
    if reason := refusal(lock):
        raise EnvironmentDiffers(reason)


def environment(lock: Path) -> dict[str, object]:
    """Where a job ran: interpreter, platform, processor, locked packages whose installed version is another, its card."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "packages": {name: found for name in ("torch", "transformers", "peft") if (found := _installed(name))},
        "differs_from_lock": differences(lock),
        **_card(),
        **({"card": json.loads(card)} if (card := os.environ.get("RANKWISE_CARD")) else {}),
    }


def processor() -> str:
    """What the vendor calls the processor."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _card() -> dict[str, str]:
    """The GPU that this process has used, and its driver."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    version = Path("/proc/driver/nvidia/version")
    driver = re.search(r"[\d.]{5,}", version.read_text(encoding="utf-8")) if version.is_file() else None
    return {"device_name": torch.cuda.get_device_name(), **({"driver": driver[0]} if driver else {})}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
