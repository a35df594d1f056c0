"""Which of the user's own metrics a study uses, for the requests of what depends on them.

Standard library only: the Snakefile imports this module.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rankwise.core import metrics, tasks
from rankwise.core.metrics import METRICS, Metric
from rankwise.study import dataset_entries

if TYPE_CHECKING:
    from rankwise.study.plan import Plan

# Tables with values of metrics. What is made from them depends on the metrics' declarations.
OF_METRICS = frozenset({"runs", "estimates", "comparisons", "summary"})


def used(plan: "Plan") -> list[Metric]:
    """The own metrics that the tables of runs have: of their tasks and their datasets' entries."""
    names: dict[str, None] = {}
    for dataset in dict.fromkeys(cell.dataset for cell in plan.cells("train")):
        entry = plan.library["datasets"][dataset]
        names |= dict.fromkeys([*tasks.facts(entry["task"]).metrics, dataset_entries.metric(entry)])
    return [METRICS[name] for name in names if METRICS[name].is_own]


def modules(plan: "Plan", tables: Iterable[str]) -> list[str]:
    """The modules of own metrics that a document depends on.

    Args:
        plan: The plan of the study.
        tables: The tables that the document is made from, or its own name if it is one.
    """
    if not OF_METRICS.intersection(tables):
        return []
    return [metrics.module(metric.name) for metric in used(plan)]


def margins(plan: "Plan") -> dict[str, float]:
    """The smallest differences that matter: of the study, and of own metrics as they declare it."""
    own = {metric.margin: metric.own_margin for metric in used(plan)}
    return {**plan.study["equivalence"], **own}
