"""Whether a training that is stopped (SIGTERM) or killed (SIGKILL) resumes to the same bytes.

Two runs without interruption say whether the machine computes the same bytes twice at all. Kernels
that torch calls deterministic are asked for.
"""

import functools
import os
import signal
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu_check import cases, training, workers
from benchmarks.gpu_check.runner import Check
from rankwise.core import paths, provenance

METHODS = ("lora", "galore")
SCHEDULE = {"updates": 40, "batch_size": 16, "evaluate_every_updates": 20, "eval_batch_size": 16}
TOKENS = 64
SAVED_AT = 10  # the number of the check after which a run that will be killed writes a checkpoint
# cuBLAS computes the same bits twice only with a workspace of this kind.
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class Case(NamedTuple):
    """A training that is run several times.

    Attributes:
        request: The run's.
        tokens: Of the longest text.
        folder: Has a folder for each time.
    """

    request: dict
    tokens: int
    folder: Path


def run(check: Check) -> None:
    """Send three rows for each method: run twice, stopped, killed."""
    os.environ |= DETERMINISTIC
    grid = {"models": ["distilbert"], "datasets": ["sst2"], "ranks": [8]}
    methods, schedule, tokens = METHODS, SCHEDULE, TOKENS
    if check.rehearse:
        grid = {"models": ["tiny"], "datasets": ["generated_reviews"], "ranks": [4]}
        methods, tokens = METHODS[:1], 16
        schedule = {**SCHEDULE, "updates": 20, "evaluate_every_updates": 10, "batch_size": 4}
    for method in methods:
        request = cases.training({**grid, "methods": [method]}, check.device, schedule)
        case = Case(request, tokens, check.scratch / f"resume_{method}")
        labels = {"method": method, "interruption": "none, run twice"}
        first = check.attempt(labels, functools.partial(_twice, check, case))
        if "digest" not in first:
            continue
        for number in (signal.SIGTERM, signal.SIGKILL):
            resumed = functools.partial(_resumed, check, case, number, first["digest"])
            check.attempt({"method": method, "interruption": number.name}, resumed)


def _twice(check: Check, case: Case) -> dict:
    first, second = (_finished(check, case, f"whole_{number}") for number in range(2))
    return {"same_bytes": first == second, "digest": first}


def _finished(check: Check, case: Case, name: str) -> str:
    """The digest of a run, which goes on from the checkpoint in its folder if there is one."""
    worker = workers.start(_train, case, name, False, False)
    return workers.answer(worker, check.seconds_left())


def _resumed(check: Check, case: Case, number: signal.Signals, whole: str) -> dict:
    """Interrupt a run, resume it, and compare it with one that was not interrupted.

    Args:
        check: The part's.
        case: The training.
        number: The signal that interrupts it.
        whole: The digest of a run without interruption.
    """
    is_killed = number == signal.SIGKILL
    worker = workers.start(_train, case, number.name, True, is_killed)
    marker = _marker(case, number.name)
    status = workers.interrupted(worker, marker, number, check.seconds_left())
    file = marker.parent / paths.checkpoint(provenance.digest(case.request))
    if not file.is_file():
        return {"reason": f"no checkpoint after {number.name}, exit status {status}"}
    update = torch.load(file, map_location="cpu", weights_only=True)["update"]
    digest = _finished(check, case, number.name)
    return {
        "same_bytes": digest == whole,
        "digest": digest,
        "exit_status": status,
        "resumed_after_update": update,
        "updates": case.request["schedule"]["updates"],
    }


def _marker(case: Case, name: str) -> Path:
    return case.folder / name / "marker"


def _train(case: Case, name: str, is_marked: bool, saves: bool) -> str:
    """Train in this process and in a folder of its own; returns the digest of what came out."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    marker = _marker(case, name)
    marker.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(marker.parent)
    checkpoint = training.MarkedCheckpoint(
        case.request, marker if is_marked else None, SAVED_AT, saves
    )
    return training.train(case.request, case.tokens, checkpoint).digest
