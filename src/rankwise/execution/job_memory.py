"""The host memory and the time that a job asks a scheduler for.

Both follow from the training run's prediction (`snakemake predictions`), if there is one that
answers the planned request, and from the model's shapes otherwise. They are generous on purpose: a
job that is stopped at a limit costs more than one that waits a little longer.

Standard library only.
"""

import math

from rankwise.core import result
from rankwise.core.model_shapes import LAYERS
from rankwise.core.store import Store, cell_place
from rankwise.study.measurements import PREDICT, TIMED
from rankwise.study.plan import Cell, Plan

MIB = 2**20

# Host memory.
LIBRARIES_MIB = {"cpu": 2500, "cuda": 5000}  # of a process that has imported torch (and CUDA's)
MARGIN = 1.3  # times the predicted peak: workspace of kernels, the best state so far, the data
COPIES = 3  # of the fp32 weights in host memory, while a model is read, adapted and moved to a GPU
REAL = 6  # times the fp32 weights: a training step on real tensors, if there is no prediction

# Time.
RATES = {"cpu": 5e9, "cuda": 5e12}  # FLOP/s of training: a laptop's core, a small GPU in fp32
SLOWER = 3  # how many times slower than RATES a machine may be
START_MIN = 15  # minutes until a job trains
UNKNOWN_MIN = 24 * 60  # minutes for a run without a prediction

# Keys of an architecture that give a layer's experts, and the width of each: the first that is
# there. Source: the configurations of Mixtral, Qwen-MoE, DeepSeek and Ernie in transformers.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERT_WIDTHS = ("moe_intermediate_size", "intermediate_size")
EXPERT_MATRICES = 3  # gate, up and down, each (expert width, hidden size) or its transpose


def prediction(plan: Plan, cell: Cell) -> dict:
    """The predicted metrics of a cell's training run.

    Returns:
        Metrics by name; empty if there is no prediction.
    """
    digest = plan.cell_digest(PREDICT, cell.curve)
    file = Store(plan.root).find(cell_place(PREDICT, cell.curve.names, digest))
    return result.read(file).get("metrics", {}) if file else {}


def training_mib(plan: Plan, cell: Cell) -> int:
    """Host memory of a training run, in MiB: of all its processes."""
    processes = plan.processes("trial" if cell.trial else "train", cell)
    predicted = prediction(plan, cell) if plan.study["device"] == "cpu" else {}
    return processes * _process_mib(plan, cell, predicted)


def evaluation_mib(plan: Plan, cell: Cell) -> int:
    """Host memory of an evaluation, in MiB: one process, whose memory is not predicted."""
    return _process_mib(plan, cell, {})


def _process_mib(plan: Plan, cell: Cell, predicted: dict) -> int:
    """Host memory of one process that loads a cell's model, in MiB."""
    device = plan.study["device"]
    weights_bytes = 4 * parameters(plan.library["models"][cell.model])
    if device == "cpu":
        needed = MARGIN * predicted.get("peak_bytes", REAL * weights_bytes)
    else:
        needed = COPIES * weights_bytes
    return LIBRARIES_MIB[device] + math.ceil(needed / MIB)


def training_min(plan: Plan, cell: Cell) -> int:
    """The time limit of a training run, in minutes."""
    seconds = predicted_s(plan, prediction(plan, cell))
    if seconds is None:
        return UNKNOWN_MIN
    return START_MIN + math.ceil(SLOWER * seconds / 60)


def profile_mib(plan: Plan, measurement: str, cell: Cell) -> int:
    """Host memory of a profile, in MiB.

    Tensors count if they are real (not on the meta device) and on the CPU. Those of a profile on a
    GPU are made on the GPU.
    """
    request = plan.request(measurement, cell)
    is_real = request.get("measured", measurement in TIMED)
    device = request.get("device", "cpu")
    tensors_bytes = 0
    if is_real and device == "cpu":
        tensors_bytes = REAL * 4 * parameters(plan.library["models"][cell.model])
    return LIBRARIES_MIB[device] + math.ceil(tensors_bytes / MIB)


def predicted_s(plan: Plan, predicted: dict) -> float | None:
    """Seconds that the updates of a run take at RATES.

    Args:
        plan: Gives the study's device and its CPU threads.
        predicted: The run's prediction, with `updates` and `update_flops`; may be empty.

    Returns:
        Seconds, or None if the number of updates is not known.
    """
    if "updates" not in predicted:
        return None
    device = plan.study["device"]
    cores = plan.study["cpu_threads"] if device == "cpu" else 1
    flops = predicted["updates"] * predicted["update_flops"]
    return flops / (RATES[device] * cores)


def parameters(model: dict) -> int:
    """Nearly all parameters of a model: the embedding and the matrices of every layer.

    Experts are stacked tensors without a role, so no module of the entry has them. Every layer
    counts as one with experts: a model that has them in some layers only is asked too much for.

    Args:
        model: A resolved model entry.
    """
    architecture = model["architecture"]
    layers = _first(architecture, LAYERS, 1)
    per_layer = sum(math.prod(module["shape"]) for module in model["modules"].values())
    expert_width = _first(architecture, EXPERT_WIDTHS, 0)
    expert = EXPERT_MATRICES * model["hidden_size"] * expert_width
    per_layer += _first(architecture, EXPERTS, 0) * expert
    return architecture["vocab_size"] * model["hidden_size"] + layers * per_layer


def _first(architecture: dict, names: tuple[str, ...], default: int) -> int:
    """The value of the first of some keys that is a number."""
    values = (architecture.get(name) for name in names)
    return next((value for value in values if isinstance(value, int)), default)
