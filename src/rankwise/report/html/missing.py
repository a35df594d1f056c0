"""The page's block of results that are absent: which, how many, why, and where the log is."""

from collections import Counter

from rankwise.study import jobs, partial
from rankwise.study.grids import Cell
from rankwise.study.plan import Plan

HEADS = ("status", "measurement", "cell", "reason", "log")


def block(plan: Plan, results: list[dict], not_drawn: dict[str, str]) -> dict[str, object] | None:
    """What the template shows.

    Args:
        plan: The plan of the page.
        results: The records of all results that are there.
        not_drawn: Figure -> why it could not be drawn.

    Returns:
        Counts, sentences and rows; None if nothing is absent.
    """
    if not isinstance(plan, partial.PartialPlan):
        if not not_drawn:
            return None
        plan = partial.PartialPlan(plan, {"planned": {}, "cells": []})
    ended: dict[str, Counter] = {}
    for record in results:
        ended.setdefault(record["measurement"], Counter())[record["status"]] += 1
    cells = plan.absent["cells"]
    order = list(partial.STATUSES)
    rows = [
        (
            partial.STATUSES[one["status"]],
            one["measurement"],
            one["title"],
            one["reason"],
            one["log"],
        )
        for one in sorted(cells, key=lambda one: order.index(one["status"]))
    ]
    return {
        "there": len(results),
        "planned": len(jobs.requested_jobs(plan.whole)),
        "sentences": partial.sentences(plan.absent, ended),
        "heads": HEADS,
        "rows": rows,
        "not_drawn": [f"{name}: {reason}" for name, reason in not_drawn.items()],
        "left_out": partial.left_out(plan),
        "ended_badly": [_ended_badly(record) for record in results if record["status"] != "ok"],
    }


def _ended_badly(record: dict) -> str:
    cell = Cell.of_columns(record["cell"])
    status = record["status"].replace("_", " ")
    return f"{record['measurement']} {partial.names([cell])}: {status}"
