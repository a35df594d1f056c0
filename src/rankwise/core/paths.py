"""Where files lie: the workflow, the user's project, prepared inputs, checkpoints, requests.

Two roots are told apart, and this is the only module that finds them:

- the *workflow root* has the Snakefile, `rules/`, `workflow_scripts/`, `envs/` and the shipped
  entries in `config/`. It is the clone that this package lies in, or, for an installed wheel, the
  copy inside the package (`rankwise/workflow/`).
- the *project root* is the folder that the user works in: studies, results and logs lie there,
  and entries, methods and optimizers of the user's own. In a plain clone both are the same.
"""

import os
from contextlib import suppress
from pathlib import Path

from rankwise.core import plugins

PACKAGE = Path(__file__).resolve().parents[1]  # the folder of the package `rankwise`
SCHEMAS = PACKAGE / "core" / "schema"
SCRIPTS = "workflow_scripts"
RESULTS = Path("results")
CACHE = RESULTS / ".cache"
CHECKPOINTS = RESULTS / "checkpoints"
REQUESTS = RESULTS / ".requests"
# Folder of a project with modules of the user's own -> the package that they are modules of.
OWN_FOLDERS = {
    "methods": "rankwise.methods",
    "optim": "rankwise.optim",
    "tasks": "rankwise.models.tasks",
    "metrics": "rankwise.analysis.own_metrics",
}


def _own_workflow() -> Path:
    """The workflow root that belongs to this package."""
    clone = PACKAGE.parents[1]
    return clone if (clone / SCRIPTS).is_dir() else PACKAGE / "workflow"


WORKFLOW = _own_workflow()


def workflow_root(project: Path) -> Path:
    """The workflow root for a project: the project itself if it is a clone, else this package's."""
    return project if (project / SCRIPTS).is_dir() else WORKFLOW


def find(project: Path, relative: str) -> Path:
    """A file of the project, or the workflow's file of the same name if the project has none."""
    own = project / relative
    return own if own.exists() else workflow_root(project) / relative


def script(name: str) -> Path:
    """The script that does the work of one rule."""
    return WORKFLOW / SCRIPTS / f"{name}.py"


def own_folder(kind: str) -> Path:
    """The folder of the project in which a user's own files of a kind lie: a key of OWN_FOLDERS."""
    return Path.cwd() / kind


def module_file(module: str) -> Path | None:
    """The source file of a module by its dotted name, or None if there is no such file.

    The package is searched first. A module of a package of OWN_FOLDERS that the package does not
    have may lie in the project, as `methods/NAME.py` or `tasks/NAME.py`. A module of another
    package is looked for where Python would import it from; its file may be compiled.

    Raises:
        ValueError: The package and the project both have the module, so its name is ambiguous.
    """
    if module.partition(".")[0] != PACKAGE.name:
        return plugins.find(module)
    packaged = _source_at(PACKAGE.parent.joinpath(*module.split(".")))
    for folder, package in OWN_FOLDERS.items():
        if not module.startswith(f"{package}."):
            continue
        rest = module.removeprefix(f"{package}.").split(".")
        own = _source_at(own_folder(folder).joinpath(*rest))
        if own and packaged and not own.samefile(packaged):
            shown = "/".join([folder, *rest])
            raise ValueError(
                f"{own}: Rankwise has a {shown}.py of its own; give your file another name"
            )
        return packaged or own
    return packaged


def _source_at(stem: Path) -> Path | None:
    """The module file `stem.py`, or the package file `stem/__init__.py`."""
    for file in (Path(f"{stem}.py"), stem / "__init__.py"):
        if file.is_file():
            return file
    return None


def checkpoint(request_digest: str) -> Path:
    """The checkpoint of a training run that has no result yet."""
    return CHECKPOINTS / f"{request_digest}.pt"


def measured_start(request_digest: str) -> Path:
    """The start that a method has measured for a training run that has no result yet."""
    return CHECKPOINTS / f"{request_digest}.start.pt"


def remove_checkpoint(request_digest: str, root: Path = Path()) -> None:
    """Remove what a training run has kept for a resume, once its result is on the disk.

    A read-only disk answers with an error even if there is nothing to remove. What cannot be
    removed does no harm: the result is there, and the next planning tries again (`study/tidy.py`).
    """
    for file in (checkpoint(request_digest), measured_start(request_digest)):
        with suppress(OSError):
            (root / file).unlink()


def expand(path: str) -> Path:
    """A path with its ${VARIABLES} replaced.

    Raises:
        FileNotFoundError: A variable is not set; the message names it.
    """
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise FileNotFoundError(f"{path}: set the environment variable first")
    return Path(expanded)
