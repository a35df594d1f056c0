"""Where things lie: prepared inputs, checkpoints, and folders that a user names by environment variables."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # the package's own folder
ROOT = PACKAGE.parents[1]  # the clone that it lies in
INPUTS = Path("results/inputs")
CHECKPOINTS = Path("results/checkpoints")
OWN_FOLDERS = ("methods", "optim")  # folders of the package that a user's own folder may add to


def own_folder(kind: str) -> Path:
    """The folder in which users keep their own files of this kind (methods or optim): beside where they run."""
    return Path.cwd() / kind


def module_file(module: str) -> Path | None:
    """The source file of a module by its dotted name, or None where there is no such file.

    `rankwise.optim.adamw` is looked for in the package first. A module of `rankwise.methods` or `rankwise.optim` that the
    package does not have may stand in the user's own folder, as `methods/NAME.py` or `optim/NAME.py` where they run.

    Raises:
        ValueError: the package and the user's own folder both have the module, so its name means two things.
    """
    packaged = _source_at(PACKAGE.parent.joinpath(*module.split(".")))
    package, *rest = module.split(".")
    if package != PACKAGE.name or len(rest) < 2 or rest[0] not in OWN_FOLDERS:
        return packaged
    own = _source_at(own_folder(rest[0]).joinpath(*rest[1:]))
    if own and packaged and not own.samefile(packaged):
        raise ValueError(
            f"{own}: Rankwise has a {'/'.join(rest)}.py of its own; give your file another name"
        )
    return packaged or own


def _source_at(stem: Path) -> Path | None:
    """The module file `stem.py`, or the package file `stem/__init__.py`."""
    for file in (Path(f"{stem}.py"), stem / "__init__.py"):
        if file.is_file():
            return file
    return None


def checkpoint(request_digest: str) -> Path:
    """Where a training of this request is kept while it has no result."""
    return CHECKPOINTS / f"{request_digest}.pt"


def expand(path: str) -> Path:
    """A path with its ${VARIABLES} replaced.

    Raises:
        FileNotFoundError: names the variable that is not set.
    """
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise FileNotFoundError(f"{path}: set the environment variable first")
    return Path(expanded)
