"""Simulated GPUs, and a folder of leases of a test's own."""

import json
from pathlib import Path


def simulate(folder: Path, *sizes_gib: float) -> dict[str, str]:
    """Write a pool of GPUs called SIM-0, SIM-1, ...

    Args:
        folder: Gets the pool's file; the folder of leases lies in it.
        *sizes_gib: Memory of each GPU, in GiB.

    Returns:
        The environment variables that let jobs use these GPUs.
    """
    entries = [
        {"uuid": f"SIM-{number}", "name": "simulated", "memory_gib": size}
        for number, size in enumerate(sizes_gib)
    ]
    pool = folder / "gpus.json"
    pool.write_text(json.dumps(entries))
    return {"RANKWISE_CARDS": str(pool), "RANKWISE_LEASES": str(folder / "leases")}
