"""What a job asks a scheduler for: host memory and time. From its training's prediction (`snakemake predictions`), if it is
there and answers the planned request, else from the model's shapes.

Generous on purpose: a job that is stopped for a limit costs more than one that waits a little longer. Standard library only.
"""

import math

from rankwise.core import result
from rankwise.study.measurements import PREDICT, TIMED
from rankwise.study.plan import Cell, Plan

MIB = 2**20
LIBRARIES_MIB = {
    "cpu": 2500,
    "cuda": 5000,
}  # resident memory of a process that has imported torch, CUDA's libraries included
COPIES = 3  # of a model's fp32 weights in host memory while it is read, adapted and moved to a card
MARGIN = 1.3  # of memory: kernels' workspace, the best state so far, data
START_MIN, SLOWER = 15, 3  # a job's start, and how much slower than RATES a machine may be
RATES = {
    "cpu": 5e9,
    "cuda": 5e12,
}  # FLOP/s that training sustains on a core of a laptop, on a small card in fp32
REAL = (
    6  # times a model's fp32 weights: what a step on real tensors takes where nothing is predicted
)
UNKNOWN_MIN = 24 * 60


def prediction(plan: Plan, cell: Cell) -> dict:
    """The predicted numbers of a cell's training; none where it was not predicted, or for another study's schedule."""
    path = plan.root / plan.path(PREDICT, cell.curve)
    found = result.read(path) if path.is_file() else {}
    return (
        found.get("metrics", {})
        if found.get("request") == plan.request(PREDICT, cell.curve)
        else {}
    )


def training_mib(plan: Plan, cell: Cell) -> int:
    """Host memory of a training."""
    device, weights = plan.study["device"], 4 * parameters(plan.library["models"][cell.model])
    peak = prediction(plan, cell).get("peak_bytes", REAL * weights)
    return LIBRARIES_MIB[device] + math.ceil(
        (MARGIN * peak if device == "cpu" else COPIES * weights) / MIB
    )


def training_min(plan: Plan, cell: Cell) -> int:
    """Minutes that a training may take."""
    seconds = predicted_s(plan, prediction(plan, cell))
    return UNKNOWN_MIN if seconds is None else START_MIN + math.ceil(SLOWER * seconds / 60)


def profile_mib(plan: Plan, measurement: str, cell: Cell) -> int:
    """Host memory of a profile: tensors count where they are real and on the CPU; on a card they are made there."""
    request = plan.request(measurement, cell)
    real, device = request.get("measured", measurement in TIMED), request.get("device", "cpu")
    held = (
        REAL * 4 * parameters(plan.library["models"][cell.model]) if real and device == "cpu" else 0
    )
    return LIBRARIES_MIB[device] + math.ceil(held / MIB)


def predicted_s(plan: Plan, predicted: dict) -> float | None:
    """Seconds of updates at RATES; None where their number is not known."""
    if "updates" not in predicted:
        return None
    cores = plan.study["cpu_threads"] if plan.study["device"] == "cpu" else 1
    return predicted["updates"] * predicted["update_flops"] / (RATES[plan.study["device"]] * cores)


def parameters(model: dict) -> int:
    """Entries of the embedding and of every layer's matrices: nearly all parameters of a model."""
    shape = model["architecture"]
    layers = next(
        shape[name] for name in ("n_layers", "n_layer", "num_hidden_layers") if name in shape
    )
    matrices = sum(math.prod(module["shape"]) for module in model["modules"].values())
    return shape["vocab_size"] * model["hidden_size"] + layers * matrices
