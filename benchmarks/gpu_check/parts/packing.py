"""Small trainings that take whole GPUs, one after another, against trainings that share a GPU.

They wait for each other by leases (rankwise.execution.gpu_lease), as the jobs of a study do.
"""

import json
import os
import time

from benchmarks.gpu_check import cases, training, workers
from benchmarks.gpu_check.runner import Check
from rankwise.execution import gpu_lease, gpus
from rankwise.execution.job import limit_gpu_memory

JOBS, SHARE_GIB = 8, 6.0
SCHEDULE = {"updates": 150, "batch_size": 8, "evaluate_every_updates": 150, "eval_batch_size": 16}
TOKENS = 64
SIMULATED = [{"uuid": "SIM-0", "name": "simulated", "memory_gib": 16}]


def run(check: Check) -> None:
    """Send a row for each of both ways, and one that compares them."""
    jobs, schedule, tokens = JOBS, SCHEDULE, TOKENS
    grid = {"models": ["distilbert"], "datasets": ["sst2"], "methods": ["lora"], "ranks": [8]}
    folder = check.scratch / "packing"
    folder.mkdir()
    os.environ["RANKWISE_LEASES"] = str(folder / "leases")
    if check.rehearse:
        jobs, tokens = 2, 16
        schedule = {**SCHEDULE, "updates": 6, "evaluate_every_updates": 6, "batch_size": 4}
        grid |= {"models": ["tiny"], "datasets": ["generated_reviews"]}
        simulated = folder / "cards.json"
        simulated.write_text(json.dumps(SIMULATED), encoding="utf-8")
        os.environ["RANKWISE_CARDS"] = str(simulated)
    if not gpus.available():
        check.row(reason="neither nvidia-smi nor the driver's files name a GPU to lease")
        return
    request = cases.training(grid, check.device, schedule)
    rows = {}
    for way, whole in (("one after another", 1), ("sharing the GPU", 0)):
        labels = {"way": way, "trainings": jobs}
        rows[way] = check.attempt(
            labels, lambda whole=whole: _makespan(check, request, tokens, jobs, whole)
        )
    serial, packed = rows.values()
    if "makespan_s" in serial and "makespan_s" in packed:
        check.row(
            way="one after another / sharing",
            trainings=jobs,
            ratio=serial["makespan_s"] / packed["makespan_s"],
            same_bytes=serial["digests"] == packed["digests"],
        )


def _makespan(check: Check, request: dict, tokens: int, jobs: int, whole: int) -> dict:
    """Seconds from the start of the first training to the end of the last."""
    start = time.monotonic()
    started = [workers.start(_job, request, tokens, whole) for _ in range(jobs)]
    try:
        answers = [workers.answer(worker, check.seconds_left()) for worker in started]
    finally:
        for worker in started:
            if worker.process.is_alive():
                worker.process.kill()
    return {
        "makespan_s": time.monotonic() - start,
        "work_s": sum(seconds for seconds, _ in answers),
        "digests": sorted({digest for _, digest in answers}),
    }


def _job(request: dict, tokens: int, whole: int) -> tuple[float, str]:
    """Take a lease and train; returns the seconds with the lease, and the digest of the run."""
    lease = gpu_lease.take(whole, 0 if whole else SHARE_GIB)
    os.environ |= lease.environment
    start = time.monotonic()
    folder = os.environ["RANKWISE_LEASES"] + f".{os.getpid()}"
    os.mkdir(folder)  # noqa: PTH102 - of this process alone: its checkpoints
    os.chdir(folder)
    if lease.shared and request["device"] == "cuda":
        limit_gpu_memory(int(SHARE_GIB * gpus.GIB))
    digest = training.train(request, tokens).digest
    seconds = time.monotonic() - start
    lease.release()
    return seconds, digest
