"""Predicted against measured peaks of the grids in matrix.yaml, case by case."""

import functools
import gc
from pathlib import Path

import torch
import yaml

from benchmarks.gpu_check import cases
from benchmarks.gpu_check.runner import Check, described
from rankwise.measure.memory.ledger import ledger

MATRIX = Path(__file__).resolve().parents[1] / "matrix.yaml"
NAMED = ("name", "rehearsed_methods")  # keys of a grid here that are none of a study


def run(check: Check) -> None:
    """Send a row for each case."""
    for grid in yaml.safe_load(MATRIX.read_text(encoding="utf-8")):
        profile = {key: value for key, value in grid.items() if key not in NAMED}
        if check.rehearse:
            if "rehearsed_methods" not in grid:
                continue
            methods = grid["rehearsed_methods"]
            profile = cases.narrowed(cases.rehearsed(profile), methods)
        for request in _requests(check, grid["name"], cases.on_device(profile, check.device)):
            cell = request["cell"]
            labels = {"grid": grid["name"], "model": cell["model"], "method": cell["method"],
                      "rank": cell["rank"]}  # fmt: skip
            check.attempt(labels, functools.partial(compared, request))


def _requests(check: Check, name: str, profile: dict) -> list[dict]:
    """The requests of a grid; a method that cannot be planned here is a row with the reason.

    A method may need a package that is missing, or a key that is not known.
    """
    try:
        return cases.profiles("ledger", profile)
    except Exception as error:
        methods = profile["methods"]
        if len(methods) == 1:
            check.row(grid=name, method=methods[0], reason=described(error))
            return []
    requests = []
    for method in methods:
        requests += _requests(check, name, cases.narrowed(profile, [method]))
    return requests


def compared(request: dict) -> dict:
    """Predict and measure one step.

    Args:
        request: A ledger's, with `measured`.

    Returns:
        Bytes and errors in percent of the measured value: of allocated memory and, on CUDA, of
        reserved memory; or the reason why the step did not run.
    """
    gc.collect()
    held = 0
    if request["device"] == "cuda":
        torch._C._cuda_clearCublasWorkspaces()  # of the cases before
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated()
    result = ledger(request)
    if result.get("status", "ok") != "ok":
        return {"reason": f"{result['status']}: {result['reason']}"}
    metrics = result["metrics"]
    measured = metrics["measured_peak_bytes"]
    predicted = metrics.get("peak_allocated_bytes", metrics["peak_bytes"])
    row = {
        "peak_phase": metrics["peak_phase"],
        "predicted_bytes": predicted,
        "measured_bytes": measured,
        "error_percent": percent(predicted, measured),
        "held_before_bytes": held,  # of the measured bytes: by what ran before
    }
    if "measured_reserved_bytes" in metrics:
        reserved, predicted_reserved = (
            metrics["measured_reserved_bytes"], metrics["peak_reserved_bytes"],
        )  # fmt: skip
        row |= {
            "predicted_reserved_bytes": predicted_reserved,
            "measured_reserved_bytes": reserved,
            "reserved_error_percent": percent(predicted_reserved, reserved),
            "context_bytes": metrics["measured_context_bytes"],
        }
    return {**row, "all": metrics}


def percent(predicted: float, measured: float) -> float:
    """The error of a prediction, in percent of what was measured."""
    return round(100 * (predicted - measured) / measured, 3)
