"""A study with one grid that searches, and its plan: shared by the tests of searches."""

from helpers.repository import ROOT
from rankwise.study.plan import Plan

RATES = [1.0e-3, 1.0e-2, 3.0e-3]
GRID = {
    "models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora", "rsvd"], "ranks": [2, 4], "seeds": [0, 1],
    "search": {"learning_rates": RATES, "seeds": [5, 6], "schedule": {"updates": 3}},
}  # fmt: skip
STUDY = {
    "name": "searched", "question": "?", "device": "cpu",
    "schedule": {"updates": 6, "batch_size": 16, "eval_batch_size": 64, "evaluate_every_updates": 2},
}  # fmt: skip


def planned(search: dict | None = None, also: tuple[dict, ...] = (), **changes: object) -> Plan:
    """The plan of a study with one grid that searches, and others beside it."""
    grid = {**GRID, **({"search": search} if search is not None else {}), **changes}
    return Plan({**STUDY, "train": [grid, *also]}, ROOT, "config/searched.yaml")
