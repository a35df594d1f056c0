"""The peak memory and the FLOPs of a training run, predicted from shapes.

The schedulers (SLURM, Snakemake, the GPU lease) are asked for this much, and a plan can estimate
hours before any hardware is there.

`peak_bytes` bounds training and evaluation. On CUDA it is what the caching allocator reserves, on a
CPU the live storages. Its batch is full and padded to the longest text of the dataset, which no
batch of any epoch exceeds (memory/dataset_lengths.py). `update_flops` are those of micro-batches of
the mean length. Not included: workspace inside kernels other than cuBLAS's, and the CUDA context.

Where several processes train a cell, the prediction is of one of them, with its part of the batch.
"""

import math

from rankwise.core.errors import Unsupported
from rankwise.measure.flops import count
from rankwise.measure.memory import account, dataset_lengths
from rankwise.measure.memory.ledger import track


def predict(request: dict) -> dict:
    """Predict one training run.

    Returns:
        A result with the metrics `peak_bytes`, `weights_bytes`, `update_flops`, `updates`,
        `mean_batch_length_tokens` and `worst_batch_length_tokens`; or status `unsupported` with the
        reason.

    Raises:
        ValueError: The dataset or the model is not prepared, or was prepared for another request,
            or a file was changed since.
    """
    training = dataset_lengths.training(request)
    try:
        columns = _columns(training.worst)
        # Only CUDA has an allocator that reserves more than is alive.
        training_peak = columns.get("peak_reserved_bytes", columns["peak_bytes"])
        metrics = {
            "peak_bytes": max(training_peak, columns["evaluation_peak_bytes"]),
            "weights_bytes": columns["weights_bytes"],
            "update_flops": count.update_flops(training.mean),
        }
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    updates_an_epoch = math.ceil(training.batches / request["accumulation_steps"])
    metrics["updates"] = request["updates"] or request["epochs"] * updates_an_epoch
    return {"metrics": {**metrics, **training.columns}}


def _columns(request: dict) -> dict[str, int | str]:
    """The columns of the ledger that a prediction needs."""
    tracker, _ = track(request, "meta")
    return account.peak_columns(tracker) | account.allocator_columns(tracker, request)
