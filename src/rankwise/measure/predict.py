"""What a training run will need, predicted from shapes: its peak memory and its FLOPs.

The schedulers (SLURM, Snakemake, the GPU lease) are asked for this much, and a plan can estimate
hours before any hardware is there.

`peak_bytes` bounds training and evaluation. On CUDA it is what the caching allocator reserves, on a
CPU the live storages. Sequences are assumed to fill their length, so shorter texts need less. Not
included: workspace inside kernels, the CUDA context, and the copies that autocast makes.

Where several processes train a cell, the prediction is of one of them, with its part of the batch.
"""

from rankwise.core.errors import Unsupported
from rankwise.measure.flops import count
from rankwise.measure.memory import account
from rankwise.measure.memory.ledger import track


def predict(request: dict) -> dict:
    """Predict one training run.

    Returns:
        A result with the metrics `peak_bytes`, `weights_bytes`, `update_flops` and, where the size
        of the train split is known, `updates`; or status `unsupported` with the reason.
    """
    try:
        training_peak, weights = _training(request)
        metrics = {
            "peak_bytes": max(training_peak, _evaluation_peak(request)),
            "weights_bytes": weights,
            "update_flops": count.update_flops(request),
        }
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    if request["updates"]:
        metrics["updates"] = request["updates"]
    return {"metrics": metrics}


def _training(request: dict) -> tuple[int, int]:
    """Bytes at the peak of training, and how many of these are weights."""
    tracker, _ = track(request, "meta")
    columns = account.peak_columns(tracker) | account.allocator_columns(tracker, request["device"])
    # Only CUDA has an allocator that reserves more than is alive.
    peak = columns.get("peak_reserved_bytes", columns["peak_bytes"])
    return peak, columns["weights_bytes"]


def _evaluation_peak(request: dict) -> int:
    """Bytes at the peak of an evaluation, whose batches may be larger than those of training."""
    shapes = {**request["shapes"], "batch_size": request["eval_batch_size"]}
    tracker, _ = track({**request, "shapes": shapes}, "meta")
    return account.peak_columns(tracker)["evaluation_peak_bytes"]
