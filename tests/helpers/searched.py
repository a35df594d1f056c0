"""A study with one grid of cells that searches for its settings; used by the tests of searches."""

from helpers.repository import ROOT
from rankwise.study.plan import Plan

RATES = [1.0e-3, 1.0e-2, 3.0e-3]
GRID = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora", "rsvd"],
    "ranks": [2, 4],
    "seeds": [0, 1],
    "search": {"learning_rates": RATES, "seeds": [5, 6], "schedule": {"updates": 3}},
}
STUDY = {
    "name": "searched",
    "question": "?",
    "device": "cpu",
    "schedule": {
        "updates": 6,
        "batch_size": 16,
        "eval_batch_size": 64,
        "evaluate_every_updates": 2,
    },
}


def planned(search: dict | None = None, also: tuple[dict, ...] = (), **changes: object) -> Plan:
    """The plan of the study.

    Args:
        search: Replaces the grid's `search`.
        also: Further grids, beside the one that searches.
        **changes: Replace other keys of the grid.
    """
    grid = {**GRID, **changes}
    if search is not None:
        grid["search"] = search
    return Plan({**STUDY, "train": [grid, *also]}, ROOT, "config/searched.yaml")
