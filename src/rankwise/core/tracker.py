"""The experiment tracker of a study: its package, and how accelerate starts a run in it.

A tracker changes no result, so it is no part of a request: the workflow hands it to jobs in
environment variables. A run is named after its cell and the first digits of its request's digest,
which tell two settings of one cell apart, and grouped with the other seeds and ranks of its model,
dataset and method. A training that resumes goes on in the same run.

Standard library only.
"""

import importlib.metadata
import importlib.util
import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

from rankwise.core import provenance, settings

NONE = "none"
# Tracker -> its packages; it needs one of them. accelerate ignores a tracker without a package.
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
FOLDER = Path("logs", "tracking")
NAMED_DIGITS = 8  # of the digest, in a run's name


class Tracking(NamedTuple):
    """How a run is tracked, in accelerate's words.

    Args:
        log_with: The tracker; None for none.
        folder: Where a tracker that keeps files puts them: one folder for each study.
        project: The name that `init_trackers` gets.
        config: The settings that the tracker shows; None if the tracker would file them as a run
            of their own, as accelerate does for TensorBoard.
        options: The keyword arguments of the tracker's own start, by tracker.
    """

    log_with: str | None
    folder: Path
    project: str
    config: dict | None
    options: dict[str, dict]


def missing(name: str) -> str | None:
    """The package to install for a tracker; None if it is there, or if no tracker is asked for."""
    if name == NONE or any(map(_is_installed, PACKAGES[name])):
        return None
    return PACKAGES[name][0]


def _is_installed(package: str) -> bool:
    """Whether a package is installed. A folder of its name, such as wandb leaves, is none."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec(package) is not None


def of_run(name: str, request: dict) -> Tracking:
    """How a run is tracked: by the tracker and in the study that the environment names.

    Args:
        name: The run's name, before the digits of the digest.
        request: The run's request.

    Raises:
        ValueError: The tracker's package is not installed.
    """
    tracker = settings.read("RANKWISE_TRACKER")
    study = settings.read("RANKWISE_STUDY")
    package = missing(tracker)
    if package:
        raise ValueError(
            f"tracker: got {tracker}, but the package {package} is not installed where the job "
            "runs; allowed: none, or install it there"
        )
    digest = provenance.digest(request)
    cell = request.get("cell", {})
    run, folder = f"{name} {digest[:NAMED_DIGITS]}", FOLDER / study
    if tracker == NONE:
        return Tracking(None, folder, run, None, {})
    folder.mkdir(parents=True, exist_ok=True)
    config = {**cell, "request": digest}
    learning_rate = request.get("method", {}).get("learning_rate")
    if learning_rate is not None:
        config["learning_rate"] = learning_rate
    if tracker == "tensorboard":  # a run is a folder; the project's name is its path
        return Tracking(tracker, folder, run, None, {})
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
    os.environ.setdefault("WANDB_MODE", "offline")  # nothing leaves the machine unasked
    shared = {"name": run, "group": group(cell) or name, "resume": "allow"}
    options = {"wandb": {**shared, "id": digest, "dir": str(folder)}, "trackio": shared}
    return Tracking(tracker, folder, study, config, options)


def memory(peak_gpu_bytes: int) -> dict[str, float]:
    """The peak of memory, which a tracker shows beside the numbers of the history.

    Args:
        peak_gpu_bytes: Peak of the allocated GPU memory; 0 without a GPU.

    Returns:
        `peak_allocated_bytes` of the GPU, or `peak_resident_bytes` of the process without one.
    """
    if peak_gpu_bytes:
        return {"peak_allocated_bytes": float(peak_gpu_bytes)}
    kibibyte = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_resident_bytes": float(peak * kibibyte)}


def group(cell: dict) -> str:
    """The group of a cell's run: `tiny/reviews/lora`; empty of a run without a cell."""
    return "/".join(cell[key] for key in ("model", "dataset", "method") if key in cell)


def run_name(cell: dict) -> str:
    """The name of a cell's run: `tiny/reviews/lora r8 seed0`, and the trial of a search."""
    words = [group(cell), f"r{cell['rank']}"]
    if "trial" in cell:
        words.append(cell["trial"])
    if "seed" in cell:
        words.append(f"seed{cell['seed']}")
    return " ".join(words)
