"""Where things lie: prepared inputs, checkpoints, and folders that a user names by environment variables."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # the package's own folder
ROOT = PACKAGE.parents[1]  # the clone that it lies in
INPUTS = Path("results/inputs")
CHECKPOINTS = Path("results/checkpoints")


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
