"""A study of which only some results are there: what can be made of them, and what is absent.

A partial plan is the study without its absent cells, so that tables, figures and page are made from
what is there. Each document's request then names the absent cells, because the document says them,
and because it must be made anew when their results come.

    absent = {"planned": {measurement: number of cells}, "cells": [one for each absent cell]}

An absent cell has its `measurement`, `cell` (as the rows of tables name it), `title`, `status` (a
key of `STATUSES`), the `reason` as far as it is known, and the path of the `log` that tells more.

Standard library only: the Snakefile imports this module.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable

from rankwise.study import jobs, outputs
from rankwise.study.grids import Cell
from rankwise.study.jobs import PAGE, TEXT, PlannedJob
from rankwise.study.plan import Plan

# What became of a cell that has no result, and how a sentence says that of it.
STATUSES = {
    "failed": "failed",
    "stopped": "stopped",
    "running": "still running",
    "waiting": "waiting for a job that failed",
    "not run": "not run",
}
KINDS = {
    "train": "training runs",
    "trial": "trials",
    "evaluate": "evaluations",
}  # all others are profiles
MAX_NAMED = 6  # curves that a sentence names one by one


class PartialPlan(Plan):
    """A plan without the cells that have no result.

    Args:
        whole: The plan of the whole study.
        absent: What is absent from it, as the module's docstring says.

    Attributes:
        whole: As in the arguments.
        absent: As in the arguments.
    """

    def __init__(self, whole: Plan, absent: dict):
        # Nothing is checked and read a second time: the study is the same.
        vars(self).update(vars(whole))
        self.whole, self.absent = whole, absent
        self._searched = None
        self._absent_cells = {(one["measurement"], cell_of(one)) for one in absent["cells"]}

    def cells(self, measurement: str) -> list[Cell]:
        """The cells of a measurement that have a result, in the study's order."""
        return [
            cell
            for cell in self.whole.cells(measurement)
            if (measurement, cell) not in self._absent_cells
        ]

    def is_searched(self, curve: Cell) -> bool:
        """Whether a search chooses the settings of the curve's runs, and some trial is there."""
        if self._searched is None:
            self._searched = {cell.curve for cell in self.cells("trial")}
        return curve in self._searched

    def request(self, measurement: str, cell: Cell) -> dict:
        """The request of the whole plan, which keeps it."""
        return self.whole.request(measurement, cell)

    def cell_digest(self, measurement: str, cell: Cell) -> str:
        """The digest of the whole plan, which keeps it."""
        return self.whole.cell_digest(measurement, cell)


def replanned(plan: Plan, request: dict) -> Plan:
    """The plan that a document was planned with: a partial one if its request names absent cells.

    Args:
        plan: The plan of the whole study.
        request: The document's request.
    """
    return PartialPlan(plan, request["absent"]) if "absent" in request else plan


def cell_of(absent_cell: dict) -> Cell:
    """The cell of an absent cell."""
    return Cell.of_columns(absent_cell["cell"])


# Documents ----------------------------------------------------------------------------------------


def document_jobs(plan: PartialPlan) -> list[PlannedJob]:
    """The jobs that write what can be made of the results that are there, in order.

    Each request names the absent cells that its document would also be made from. If there are
    none, the request is that of the whole study.
    """
    measurements = _measurements(plan.whole)
    found = []
    for job in jobs.document_jobs(plan):
        absent = plan.absent
        if job.kind not in (PAGE, TEXT):  # which say everything that is absent
            absent = _restricted(absent, measurements[job.path])
        if absent["cells"]:
            found.append(_with_request(job, {**job.request, "absent": absent}))
        else:
            found.append(job)
    return found


def _with_request(job: PlannedJob, request: dict) -> PlannedJob:
    return dataclasses.replace(job, make_request=lambda: request)


def left_out(plan: PartialPlan) -> list[str]:
    """Documents of the whole study for which no result is there; each named by its first file."""
    made = {job.path for job in jobs.document_jobs(plan)}
    return [job.path for job in jobs.document_jobs(plan.whole) if job.path not in made]


def without_figures(page: PlannedJob, reasons: dict[str, str]) -> PlannedJob:
    """The job of a page that does not show some figures, and says why.

    Args:
        page: The job of the page.
        reasons: Figure -> why it could not be drawn.
    """
    endings = tuple(f"/{outputs.figure_stem(name)}.svg" for name in reasons)
    inputs = tuple(path for path in page.inputs if not path.endswith(endings))
    figures = {name: text for name, text in page.request["figures"].items() if name not in reasons}
    request = {**page.request, "figures": figures, "not_drawn": reasons, "reads": list(inputs)}
    return _with_request(dataclasses.replace(page, inputs=inputs), request)


def _measurements(plan: Plan) -> dict[str, set[str]]:
    """First file of each document -> the measurements whose results it is made from."""
    by_path: dict[str, set[str]] = {}
    for job in jobs.requested_jobs(plan):
        by_path[job.path] = {job.kind}
    for job in jobs.document_jobs(plan):
        made_from = set().union(*(by_path[path] for path in job.inputs))
        by_path.update(dict.fromkeys(job.outputs, made_from))
    return by_path


def _restricted(absent: dict, measurements: set[str]) -> dict:
    """The absent results of some measurements."""
    return {
        "planned": {
            name: count for name, count in absent["planned"].items() if name in measurements
        },
        "cells": [one for one in absent["cells"] if one["measurement"] in measurements],
    }


# In words -----------------------------------------------------------------------------------------


def kind_name(measurement: str) -> str:
    """The name of several results of a measurement: `training runs`, `memory profiles`."""
    return KINDS.get(measurement, f"{measurement} profiles")


def counted(absent: dict) -> dict[str, Counter]:
    """Measurement -> how many of its cells have each status of absent cells."""
    counts: dict[str, Counter] = {}
    for one in absent["cells"]:
        counts.setdefault(one["measurement"], Counter())[one["status"]] += 1
    return counts


def sentences(absent: dict, ended: dict[str, Counter] | None = None) -> list[str]:
    """A sentence for each measurement that has absent cells.

    Args:
        absent: As the module's docstring says.
        ended: Measurement -> how many of its results have each status.

    Returns:
        Such as `Partial: of 12 training runs, 2 not run (tiny/sst2 lora r2 seeds 1, 2), 1 failed
        (tiny/sst2 hira r2 seed 0), 1 diverged.`
    """
    texts = []
    for measurement, counts in counted(absent).items():
        cells = [one for one in absent["cells"] if one["measurement"] == measurement]
        parts = []
        for status, words in STATUSES.items():
            if status in counts:
                named = [cell_of(one) for one in cells if one["status"] == status]
                parts.append(f"{counts[status]} {words} ({names(named)})")
        for status, number in (ended or {}).get(measurement, Counter()).items():
            if status != "ok":
                parts.append(f"{number} {status.replace('_', ' ')}")
        planned = absent["planned"][measurement]
        texts.append(f"Partial: of {planned} {kind_name(measurement)}, {', '.join(parts)}.")
    return texts


def names(cells: Iterable[Cell]) -> str:
    """Cells in a few words, by curve: `tiny/sst2 full seed 0; lora r2 seeds 0, 1`."""
    by_curve: dict[Cell, list[Cell]] = {}
    for cell in cells:
        by_curve.setdefault(cell.curve, []).append(cell)
    texts = []
    place_before = ""
    for curve, own in by_curve.items():
        place = f"{curve.model}/{curve.dataset} "
        texts.append(
            _curve_name(curve, own) if place == place_before else place + _curve_name(curve, own)
        )
        place_before = place
    if len(texts) > MAX_NAMED:
        texts = [*texts[:MAX_NAMED], f"and {len(texts) - MAX_NAMED} more"]
    return "; ".join(texts)


def _curve_name(curve: Cell, cells: list[Cell]) -> str:
    rank = f" r{curve.rank}" if curve.rank else ""
    trials = dict.fromkeys(cell.trial for cell in cells if cell.trial is not None)
    seeds = dict.fromkeys(str(cell.seed) for cell in cells if cell.seed is not None)
    parts = [f"{curve.method_name}{rank}", *trials]
    if seeds:
        parts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}")
    return " ".join(parts)
