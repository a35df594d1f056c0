"""The note under a table of a study some of whose results are absent."""

from collections import Counter

import pandas as pd

from rankwise.study import partial


def notes(request: dict, results: pd.DataFrame | None = None) -> list[str]:
    """The absent results of a table: a sentence for each measurement.

    Args:
        request: Of the table; it has `absent` if something is absent.
        results: The table of runs, whose statuses are counted in the sentence on training runs.
    """
    if "absent" not in request:
        return []
    ended = {}
    if results is not None and "status" in results:
        ended["train"] = Counter(results["status"])
    return partial.sentences(request["absent"], ended)
