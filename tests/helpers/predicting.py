"""A plan whose training runs are predicted."""

from helpers.repository import ROOT
from rankwise.study.grids import Cell
from rankwise.study.plan import Plan

GRID = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora"],
    "ranks": [8],
}
LORA = Cell("tiny", "generated_reviews", "lora", 8)


def plan_of(**schedule: object) -> Plan:
    """Two methods with two seeds, trained for 4 epochs of updates of 2 x 32 samples."""
    default = {"epochs": 4, "batch_size": 32, "eval_batch_size": 8, "accumulation_steps": 2}
    schedule = {**default, **schedule}
    profile = {
        **GRID,
        "batch_size": schedule["batch_size"],
        "accumulation_steps": 2,
        "padded": True,
        "measurements": ["ledger", "flops"],
    }
    study = {
        "name": "predict",
        "question": "?",
        "device": "cpu",
        "cpu_threads": 1,
        "schedule": schedule,
        "profile": [profile],
        "train": [{**GRID, "seeds": [0, 1]}],
    }
    return Plan(study, ROOT)
