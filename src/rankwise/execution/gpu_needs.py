"""The GPUs that a job takes, as Snakemake's resources `gpu` and `gpu_memory_gib`.

`gpu` counts whole GPUs. A training run that shares a GPU has `gpu` 0, because Snakemake's limit on
`gpu` would let one run at a time, and `gpu_memory_gib`, the share that its lease (gpu_lease.py)
gives it. Jobs that measure memory or speed never share a GPU, nor do evaluations, whose memory is
not predicted.

Standard library only.
"""

import math

from rankwise.core.units import CUDA_CONTEXT_BYTES
from rankwise.study.measurements import EVALUATE, MEASUREMENTS

GIB = 2**30

# A share is the predicted peak of the allocator and what the prediction leaves out.
MARGIN = 1.1  # times the predicted peak, for the error of the prediction
WORKSPACE_GIB = 0.25  # of the allocator's memory, for the workspace of cuBLAS and for rounding
CONTEXT_GIB = CUDA_CONTEXT_BYTES / GIB  # in each process; job.py limits the allocator to the rest


def gpu_need(
    study: dict,
    measurement: str,
    on_gpu: bool,
    predicted: dict,
    local: bool,
    processes: int = 1,
) -> tuple[int, float]:
    """The GPUs that a job of a study takes.

    Args:
        study: The resolved study.
        measurement: What the job does: `train`, `trial` or a measurement.
        on_gpu: Whether it runs on a GPU at all.
        predicted: The prediction of its training run, with `peak_bytes`; may be empty.
        local: Whether it runs on this machine. The scheduler of a cluster gives whole GPUs only, so
            nothing is shared there.
        processes: How many processes train the cell. Each of several takes a whole GPU.

    Returns:
        The number of whole GPUs, and the GiB of a share.
    """
    if not on_gpu:
        return 0, 0.0
    if processes > 1:
        return processes, 0.0
    may_share = study["share"] and local and measurement not in (*MEASUREMENTS, EVALUATE)
    if not may_share or "peak_bytes" not in predicted:
        return 1, 0.0
    share_gib = MARGIN * predicted["peak_bytes"] / GIB + WORKSPACE_GIB + CONTEXT_GIB
    return 0, math.ceil(100 * share_gib) / 100
