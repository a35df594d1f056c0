"""Seconds, FLOP utilisation and joules of an update, and two readings of the GPU's energy compared.

NVML counts joules and reports watts. The watts integrated over time must come near to the counter.
"""

import time

import torch

from benchmarks.gpu_check import cases
from benchmarks.gpu_check.parts.matrix import percent
from benchmarks.gpu_check.runner import Check
from rankwise.measure.speed.nvml import Gpu
from rankwise.measure.speed.throughput import throughput

GRIDS = (
    {"models": ["distilbert"], "datasets": ["sst2"], "methods": ["full", "lora", "galore"],
     "ranks": [16], "batch_size": 32, "sequence_length_tokens": 128},
    {"models": ["llama_2_7b"], "datasets": ["wikitext2"], "methods": ["lora"], "ranks": [16],
     "batch_size": 4, "sequence_length_tokens": 1024, "checkpointing": True,
     "override": {"lora": {"weights": "bf16"}}},
)  # fmt: skip
SHOWN = (
    "update_time_s", "forward_time_s", "backward_time_s", "optimizer_time_s",
    "throughput_tokens_per_s", "model_flops_utilisation_fraction", "energy_joules", "energy_meter",
    "taint", "repeats",
)  # fmt: skip
LOAD_S, LOOK_EVERY_S = 4.0, 0.05
SIDE = 8192  # rows of the matrices that load the GPU


def run(check: Check) -> None:
    """Send a row for the meters, and one for each method."""
    check.attempt({"model": "matrix products", "method": "meters"}, lambda: _meters(check))
    for grid in GRIDS[: 1 if check.rehearse else None]:
        profile = {**grid, "device": check.device}
        if check.rehearse:
            profile = cases.narrowed(cases.rehearsed(grid), grid["methods"][:1])
        for request in cases.profiles("throughput", profile):
            cell = request["cell"]
            labels = {"model": cell["model"], "method": cell["method"]}
            check.attempt(labels, lambda request=request: _timed(request))


def _timed(request: dict) -> dict:
    result = throughput(request, processes=1)
    if "status" in result:
        return {"reason": f"{result['status']}: {result['reason']}"}
    cost = result["cost"]
    return {**{name: cost[name] for name in SHOWN if name in cost}, "all": result["metrics"]}


def _meters(check: Check) -> dict:
    """Load the GPU for a few seconds, and compare the counter with the integrated power."""
    gpu = Gpu.find() if check.device == "cuda" else None
    if gpu is None:
        return {"reason": "no NVML here"}
    side = torch.randn(SIDE, SIDE, device="cuda").to(torch.bfloat16)
    start_j, started, looks = gpu.energy_j(), time.perf_counter(), []
    while (now := time.perf_counter()) < started + LOAD_S:
        looks.append(gpu.power_w())
        while time.perf_counter() < now + LOOK_EVERY_S:
            side @ side
            torch.cuda.synchronize()
    end_j, seconds = gpu.energy_j(), time.perf_counter() - started
    if start_j is None or None in looks:
        return {"reason": f"the GPU reports an energy of {start_j} J and a power of {looks[0]} W"}
    mean_w = sum(looks) / len(looks)
    return {
        "energy_joules": end_j - start_j,
        "mean_power_w": mean_w,
        "integrated_joules": mean_w * seconds,
        "difference_percent": percent(mean_w * seconds, end_j - start_j),
        "energy_meter": "nvml, counter and power",
    }
