"""Requests of profiles and trainings, as a study would make them; tiny ones in a rehearsal."""

from pathlib import Path

import torch

from rankwise.study.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
THREADS = 4  # of torch, where a part trains or measures times
HOPPER = 9  # major number of the compute capability
# In a rehearsal: a model of the same task with the same roles, and small batches.
TINY = {
    "distilbert": ("tiny", "generated_reviews"),
    "llama_3_2_1b": ("tiny_decoder", "generated_sums"),
    "llama_2_7b": ("tiny_decoder", "generated_sums"),
}
TINY_SIZES = {"batch_size": 2, "sequence_length_tokens": 16}


def rehearsed(grid: dict) -> dict:
    """A profile's grid with tiny models and sizes, on the CPU.

    Args:
        grid: With one model, whose name is a key of TINY.
    """
    model, dataset = TINY[grid["models"][0]]
    small = {"models": [model], "datasets": [dataset], "device": "cpu", "ranks": [4]}
    kept = {name: value for name, value in grid.items() if name != "lengths_tokens"}
    return {**kept, **small, **TINY_SIZES}


def narrowed(grid: dict, methods: list[str]) -> dict:
    """A profile's grid with some of its methods.

    Args:
        grid: As in the section `profile` of a study.
        methods: Those that stay.
    """
    override = {name: of for name, of in grid.get("override", {}).items() if name in methods}
    return {**grid, "methods": methods, "override": override}


def profiles(measurement: str, grid: dict) -> list[dict]:
    """The requests of a measurement of all cells of a grid, in their order.

    Args:
        measurement: `ledger`, `fits` or `throughput`.
        grid: As in the section `profile` of a study.
    """
    study = {
        "name": "gpu_check",
        "question": "Do predictions hold?",
        "device": "cpu",
        "cpu_threads": THREADS,
        "profile": [{**grid, "measurements": [measurement]}],
    }
    plan = Plan(study, ROOT, "gpu_check")
    return [plan.request(measurement, cell) for cell in plan.cells(measurement)]


def on_device(grid: dict, device: str) -> dict:
    """A profile's grid for this machine: the device, and on CUDA the GPU's architecture.

    Args:
        grid: As in the section `profile` of a study.
        device: cpu or cuda.
    """
    if device == "cpu":
        return {**grid, "device": device}
    is_hopper = torch.cuda.get_device_capability()[0] == HOPPER
    return {**grid, "device": device, "gpu": "hopper" if is_hopper else "ampere"}


def training(grid: dict, device: str, schedule: dict) -> dict:
    """The request of a training run.

    Args:
        grid: With `models`, `datasets`, `methods` and `ranks`, of one cell.
        device: cpu or cuda.
        schedule: Of the study.
    """
    study = {
        "name": "gpu_check",
        "question": "Does a training resume?",
        "device": device,
        "environment": "gpu",
        "cpu_threads": THREADS,
        "schedule": schedule,
        "train": [{**grid, "seeds": [0]}],
    }
    plan = Plan(study, ROOT, "gpu_check")
    (cell,) = plan.cells("train")
    return plan.request("train", cell)
