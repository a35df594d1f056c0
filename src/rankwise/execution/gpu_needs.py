"""What a job takes of the cards, as Snakemake's resources `gpu` and `gpu_memory_gib`. Standard library only.

`gpu` counts whole cards. A training that shares one has `gpu` 0, for Snakemake's limit on it would let one run at a time, and
`gpu_memory_gib`, which the lease (lease.py) gives it of a card. What measures memory or speed never shares.
"""

import math

from rankwise.core.units import CUDA_CONTEXT_BYTES
from rankwise.study.measurements import MEASUREMENTS

GIB = 2**30
MARGIN = 1.1  # of the predicted peak, for its error
WORKSPACE_GIB = 0.25  # beyond it, of the allocator's memory, for cuBLAS and rounding
CONTEXT_GIB = CUDA_CONTEXT_BYTES / GIB  # job.py limits a job's allocator to the rest of its share


def card_need(
    study: dict, measurement: str, on_gpu: bool, predicted: dict, local: bool
) -> tuple[int, float]:
    """(whole cards, GiB of one) for a job of a study; `predicted` has its training's `peak_bytes`, where they are known.

    On a cluster (not `local`) the scheduler hands out whole cards, so nothing is shared there.
    """
    if not on_gpu:
        return 0, 0.0
    if (
        not study["share"]
        or not local
        or measurement in MEASUREMENTS
        or "peak_bytes" not in predicted
    ):
        return 1, 0.0
    return 0, math.ceil(
        100 * (MARGIN * predicted["peak_bytes"] / GIB + WORKSPACE_GIB + CONTEXT_GIB)
    ) / 100
