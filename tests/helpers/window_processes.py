"""What each of two processes trains in the test of gradients over processes; they import it from here."""

import os
from pathlib import Path

import torch
from torch import distributed

from helpers.windows import TASKS, record

# Every task where the last micro-batch has one example, which one process alone gets; and one task
# where a window is one batch, and where it is many.
CASES = [
    *((task, (2, 8)) for task in TASKS),
    ("classification", (16, 1)),
    ("classification", (5, 3)),
]


def work(process: int, ports: list[int], folder: str) -> None:
    """One of two processes: train every case and save what was recorded.

    Each case meets at a port of its own, and leaves when both processes have ended it.
    """
    torch.set_num_threads(1)
    place = {"RANK": process, "LOCAL_RANK": process, "WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.chdir(folder)
    recorded = {}
    for (task, split), port in zip(CASES, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        run = record(task, split)
        updates = [update._asdict() for update in run.updates]
        recorded[task, split] = {**run._asdict(), "updates": updates}
        distributed.barrier()
        distributed.destroy_process_group()
    torch.save(recorded, Path(folder) / f"{process}.pt")
