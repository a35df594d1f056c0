"""The summary numbers of a result, computed again from its scores by example.

A result's seal shows that no byte was changed by accident. It cannot show that nobody typed another
accuracy and sealed the file anew. So a table of results compares each number that follows from the
stored scores with what they give, and refuses a result in which the two differ.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.analysis.metrics import value, weighted_mean
from rankwise.core import sound
from rankwise.core.metrics import LOSS, SHIPPED, WEIGHT
from rankwise.core.store import Store, StoreError

# Two processors may differ in the last bits of a sum, and in more bits of a correlation.
RELATIVE, ABSOLUTE = 1e-9, 1e-12
EVALUATION_LOSS = "eval_loss_nats"


class _Number(NamedTuple):
    key: str  # `metrics.accuracy_fraction`, `rows.0.score_fraction`
    stored: float
    computed: float


def check(file: Path, stored: dict) -> None:
    """Refuse a result whose numbers do not follow from its own scores, and set it aside.

    Args:
        file: The result's file, for the message.
        stored: What it says. Without `examples`, nothing is checked.

    Raises:
        StoreError: A number is not the one that the scores give.
    """
    for number in _numbers(stored):
        if not math.isclose(number.stored, number.computed, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            raise StoreError(
                f"{file}: {number.key}: got {number.stored!r}, allowed: {number.computed!r}, which "
                f"the result's own scores by example give; {sound.remedy(file, Store())}"
            )


def _numbers(stored: dict) -> Iterator[_Number]:
    """Every number of a result that follows from its scores."""
    examples = stored.get("examples") or {}
    metrics = stored.get("metrics", {})
    if {LOSS, WEIGHT} <= examples.keys() and EVALUATION_LOSS in metrics:
        loss = weighted_mean(examples[LOSS], examples[WEIGHT])
        yield _Number(f"metrics.{EVALUATION_LOSS}", metrics[EVALUATION_LOSS], loss)
    for name, metric in SHIPPED.items():
        # Metrics of the user's own are computed when the table is made, and not read.
        if name in metrics and {*metric.scores, WEIGHT} <= examples.keys():
            yield _Number(f"metrics.{name}", metrics[name], value(metric, examples))
    for place, row in enumerate(stored.get("rows") or []):
        scores = examples.get(row.get("metric"))
        if scores and "score_fraction" in row:  # of an evaluation
            mean = math.fsum(scores) / len(scores)
            yield _Number(f"rows.{place}.score_fraction", row["score_fraction"], mean)
            yield _Number(f"rows.{place}.samples", row["samples"], len(scores))
