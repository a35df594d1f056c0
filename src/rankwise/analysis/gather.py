"""Turn a study's results into one tidy table."""

import importlib
from pathlib import Path

import pandas as pd

from rankwise.analysis import tables, tidy
from rankwise.analysis.metrics import value
from rankwise.analysis.partial_notes import notes
from rankwise.analysis.scores import mixed
from rankwise.core.keys import CURVE
from rankwise.core.metrics import METRICS


def gather(request: dict, output: Path) -> None:
    """Write one table of a study. The table of examples, which is long, is Parquet only.

    Args:
        request: `reads`, the results' files; `variants`, the names of those methods that are a
            variant, by file; `table`; and `listed`, whether the table has a row for each item of a
            list in the results; `metrics`, for the table of runs: dataset -> the metric by which
            its runs are compared; for that of evaluations evaluation -> metric, and `means`, the
            evaluations that each mean is of. `absent` names results that are not there.
        output: Path of the table.

    Raises:
        StoreError: A result answers another request than the one that its folder names.
    """
    table, variants = request["table"], request["variants"]
    planned = [tidy.Planned(Path(path), variants.get(path)) for path in request["reads"]]
    stem = output.with_suffix("")
    if table == "examples":
        tables.write_parquet(tidy.examples(planned), output)
    elif table == "search":
        trials = tidy.trials(planned, _unfinished(request))
        tables.write(trials, stem, notes(request))
    elif table == "runs":
        runs = tidy.collect(planned, lambda stored: _own_metric(stored, request["metrics"]))
        runs = _with_metric(runs, request["metrics"])
        warnings = [f"Warning: {text}." for text in mixed(runs).values()]
        tables.write(runs, stem, [*notes(request, runs), *warnings])
    elif table == "evaluations":
        # Imported by name: a static import would make every table depend on the tests of scores.
        evaluations = importlib.import_module("rankwise.analysis.evaluations")
        scores = evaluations.collect(planned, request["metrics"], request["means"])
        tables.write(scores, stem, notes(request))
    elif request["listed"]:
        tables.write(tidy.listed(planned, table), stem, notes(request))
    else:
        tables.write(tidy.collect(planned), stem, notes(request))


def _own_metric(stored: dict, metric_by_dataset: dict[str, str]) -> dict[str, float]:
    """The user's own metric of a run, if its dataset's entry names one, from the stored scores.

    A training run reports the metrics of its task. A metric that only the entry names is computed
    here, so an edit of its file trains nothing again.
    """
    name = metric_by_dataset[stored["request"]["cell"]["dataset"]]
    is_reported = name in stored.get("metrics", {})
    if not METRICS[name].is_own or is_reported or not stored.get("examples"):
        return {}
    return {name: value(METRICS[name], stored["examples"])}


def _with_metric(runs: pd.DataFrame, metric_by_dataset: dict[str, str]) -> pd.DataFrame:
    """The runs with the metric by which they are compared, after their split."""
    place = runs.columns.get_loc("split") + 1 if "split" in runs else len(runs.columns)
    runs.insert(place, "metric", runs["dataset"].map(metric_by_dataset))
    return runs


def _unfinished(request: dict) -> set[tuple]:
    """The curves with an absent trial: their search has chosen nothing yet."""
    absent = request.get("absent", {"cells": []})["cells"]
    return {tuple(one["cell"][name] for name in CURVE) for one in absent}
