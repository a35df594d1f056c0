"""What a training run will need, predicted from shapes: its peak memory and its FLOPs.

The schedulers (SLURM, Snakemake, the GPU lease) are asked for this much, and a plan can estimate
hours before any hardware is there.

`peak_bytes` bounds training and evaluation. On CUDA it is what the caching allocator reserves, on a
CPU the live storages. Sequences are assumed to fill their length, so shorter texts need less. Not
included: workspace inside kernels other than cuBLAS's, and the CUDA context.

Where several processes train a cell, the prediction is of one of them, with its part of the batch.
"""

from rankwise.core.errors import Unsupported
from rankwise.measure.flops import count
from rankwise.measure.memory import account, per_process
from rankwise.measure.memory.ledger import track


def predict(request: dict) -> dict:
    """Predict one training run.

    Returns:
        A result with the metrics `peak_bytes`, `weights_bytes`, `update_flops` and, where the size
        of the train split is known, `updates`; or status `unsupported` with the reason.
    """
    try:
        columns = _columns(request)
        # Only CUDA has an allocator that reserves more than is alive.
        training_peak = columns.get("peak_reserved_bytes", columns["peak_bytes"])
        metrics = {
            "peak_bytes": max(training_peak, columns["evaluation_peak_bytes"]),
            "weights_bytes": columns["weights_bytes"],
            "update_flops": count.update_flops(request),
        }
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    if request["updates"]:
        metrics["updates"] = request["updates"]
    return {"metrics": metrics}


def _columns(request: dict) -> dict[str, int | str]:
    """The columns of the ledger that a prediction needs."""
    tracker, _ = track(request, "meta")
    columns = account.peak_columns(tracker) | account.allocator_columns(tracker, request)
    return per_process.with_added(columns, per_process.added(request, columns))
