"""A study with one grid of cells that searches for its settings; used by the tests of searches."""

from collections.abc import Callable
from pathlib import Path

from helpers.repository import ROOT
from helpers.stored import finish
from rankwise.core import result
from rankwise.study import jobs, search_choice
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


def write_search(
    outcome: Callable[[str, float, int], float | str],
) -> tuple[Plan, dict[Path, dict]]:
    """Write the results of all trials of the study, then every choice, to the current folder.

    Args:
        outcome: Of (method, learning rate, seed): the trial's loss, or the status of a failed one.

    Returns:
        The plan, and the choices by their paths.
    """
    plan = planned()
    for job in jobs.cell_jobs(plan, "trial"):
        cell = job.cell
        loss = outcome(cell.method, job.request["trial"]["learning_rate"], cell.seed)
        measured = {"metrics": {"eval_loss_nats": loss, "updates": 3}, "split": "selection"}
        if isinstance(loss, str):
            measured = {"status": loss, "reason": f"because of {cell.trial}"}
        finish(Path(), job, **measured)
    choices = {}
    for job in jobs.choice_jobs(plan):
        path = finish(Path(), job, **search_choice.choose(job.request))
        choices[path] = result.read(path)
    return plan, choices
