"""Tables of evaluations: one row a run and metric, and each curve's score with its interval.

Scores are paired by seed and example, as those of training runs are. A family of comparisons is all
pairs of one model, dataset and evaluation.

The mean of several evaluations counts each of them alike, however many examples it has. Its
examples are those of all evaluations, and its variance over examples is that of a stratified sample
(Cochran 1977, section 5.3): the evaluations are fixed, so what differs between them is no error.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankwise.analysis import tables, tidy
from rankwise.analysis.evidence import COMPARISON, ESTIMATE, comparisons, estimates
from rankwise.analysis.partial_notes import notes
from rankwise.analysis.scores import ONE_SEED, Curve, Group
from rankwise.core.keys import CURVE, GROUP, VARIANT
from rankwise.core.metrics import METRICS, Metric

NAME = "evaluation"
SETTINGS = ("kind", "few_shot", "limit")  # of an entry, as columns
# How a metric is compared: as an exact match where its name says so, else as an accuracy.
EXACT_MATCH, ACCURACY = METRICS["exact_match_fraction"], METRICS["accuracy_fraction"]
# What people call a metric whose name alone does not say it.
LABELS = {"accuracy_norm_fraction": "length-normalised accuracy"}


class _Run(NamedTuple):
    """The scores of one run on one evaluation, or why it has none."""

    cell: dict
    status: str
    documents: tuple[str, ...]
    scores: NDArray  # (E,)


def metric_named(name: str) -> Metric:
    """How people see a metric of evaluations.

    Args:
        name: Such as `accuracy_fraction`, or one of the harness's own, such as
            `exact_match_flexible_extract_fraction`.
    """
    if name in METRICS:
        return METRICS[name]
    label = LABELS.get(name, name.removesuffix("_fraction").replace("_", " "))
    article = "an" if label[0] in "aeiou" else "a"
    return _compared_as(name)._replace(name=name, label=label, phrase=f"{article} {label}")


def _compared_as(name: str) -> Metric:
    return EXACT_MATCH if name.startswith("exact_match") else ACCURACY


# The table of evaluations -------------------------------------------------------------------------


def collect(
    planned: list[tidy.Planned], metrics: dict[str, str], means: dict[str, list[str]]
) -> pd.DataFrame:
    """One row for each run, evaluation and metric, then one for each run and mean.

    Args:
        planned: Files of results.
        metrics: Evaluation -> the metric by which curves are compared.
        means: Name of a mean -> the evaluations that it is of.

    Returns:
        Cell, `evaluation`, `metric`, `score_fraction`, `samples`, the entry's settings; a mean's
        samples are those of all its evaluations. A run without a score has its status and reason.

    Raises:
        StoreError: A result answers another request than its folder says.
    """
    frame = tidy.collect(planned)
    names, settings = [], []
    for cell, stored in tidy.read_results(planned):
        entry = stored["request"]["evaluation"]
        for _ in stored.get("rows") or [{}]:
            names.append(cell[NAME])
            settings.append({key: entry.get(key) for key in SETTINGS})
    frame = frame.drop(columns=[NAME], errors="ignore")
    place = 1 + max(frame.columns.get_loc(key) for key in (*CURVE, "seed"))
    frame.insert(place, NAME, names)
    for key in SETTINGS:
        values = pd.Series([row[key] for row in settings], dtype=object, index=frame.index)
        frame[key] = values if key == "kind" else values.astype("Int64")
    rows = [
        row
        for name, parts in means.items()
        for row in _mean_rows(frame, name, parts, metrics[name])
    ]
    return pd.concat([frame, pd.DataFrame(rows)], ignore_index=True) if rows else frame


def _mean_rows(frame: pd.DataFrame, name: str, parts: list[str], metric: str) -> list[dict]:
    """A row for each run that has all evaluations of a mean and failed in none of them."""
    own = frame[frame[NAME].isin(parts)]
    if "metric" not in own:
        return []
    own = own[own["metric"] == metric]
    keys = [key for key in (*CURVE, "seed", VARIANT, "status", "device") if key in own]
    rows = []
    for key, found in own.groupby(keys, sort=False, dropna=False):
        if set(found[NAME]) != set(parts):
            continue
        row = dict(zip(keys, key, strict=True))
        rows.append(
            {
                **row,
                NAME: name,
                "metric": metric,
                "score_fraction": found["score_fraction"].mean(),
                "samples": int(found["samples"].sum()),
                "kind": "mean",
            }
        )
    return rows


# Intervals and comparisons ------------------------------------------------------------------------


def evidence(request: dict, output: Path) -> None:
    """Write the tables `evaluations_summary` and `evaluations_comparisons`.

    Args:
        request: `reads`, the results' files; `variants`, names of methods by file; `metrics` and
            `means` as in `collect`; `equivalence`, the margins of a study.
        output: Path of one of the two tables.

    Raises:
        StoreError: A result answers another request than its folder says.
        ValueError: Runs of one model and dataset were scored on other examples, or on several
            kinds of device.
    """
    planned = [tidy.Planned(Path(path), request["variants"].get(path)) for path in request["reads"]]
    found = groups(planned, request["metrics"], request["means"])
    parts = [
        (name, metric, comparisons([group], request["equivalence"]))
        for name, metric, group in found
    ]
    warnings = notes(request)
    tables.write(summary(found), output.with_name("evaluations_summary"), warnings)
    compared = _joined(parts, COMPARISON)
    tables.write(compared, output.with_name("evaluations_comparisons"), warnings)


def summary(found: list[tuple[str, str, Group]]) -> pd.DataFrame:
    """One row for each curve and evaluation: its score over seeds and examples, with an interval.

    Args:
        found: What `groups` returns.
    """
    parts = [(name, metric, estimates([group])) for name, metric, group in found]
    return _joined(parts, ESTIMATE)


def _joined(parts: list[tuple[str, str, pd.DataFrame]], columns: list[str]) -> pd.DataFrame:
    """The tables of all evaluations as one, with the evaluation's name and its own metric."""
    frames = [frame.assign(**{NAME: name, "metric": metric}) for name, metric, frame in parts]
    order = [*GROUP, NAME, *(column for column in columns if column not in GROUP)]
    return pd.concat(frames, ignore_index=True)[order] if frames else pd.DataFrame(columns=order)


def groups(
    planned: list[tidy.Planned], metrics: dict[str, str], means: dict[str, list[str]]
) -> list[tuple[str, str, Group]]:
    """The scores of each model, dataset and evaluation that a run ended well on.

    Args:
        planned: Files of results.
        metrics: Evaluation -> the metric by which curves are compared.
        means: Name of a mean -> the evaluations that it is of.

    Returns:
        (evaluation, its metric, its group), means last.

    Raises:
        StoreError: A result answers another request than its folder says.
        ValueError: Runs of a group were scored on other examples, or on several kinds of device.
    """
    runs: dict[tuple[str, str, str], list[_Run]] = {}
    devices: dict[tuple[str, str], set[str]] = {}
    for cell, stored in tidy.read_results(planned):
        group = cell["model"], cell["dataset"]
        devices.setdefault(group, set()).add(stored["request"]["device"])
        run = _run(cell, stored, metrics[cell[NAME]])
        runs.setdefault((*group, cell[NAME]), []).append(run)
    for (model, dataset), used in devices.items():
        if len(used) > 1:
            raise ValueError(
                f"evaluations.csv: device of {model}/{dataset} is {' and '.join(sorted(used))}; "
                "allowed: one a model and dataset"
            )
    found = {}
    for (model, dataset, name), of_group in runs.items():
        group = _group(model, dataset, name, of_group, metrics[name])
        if group is not None:
            found[model, dataset, name] = group
    listed = [(name, metrics[name], group) for (_, _, name), group in found.items()]
    for name, parts in means.items():
        for model, dataset in devices:
            of_parts = [found.get((model, dataset, part)) for part in parts]
            if None not in of_parts:
                listed.append((name, metrics[name], _mean_group(of_parts)))
    return listed


def _run(cell: dict, stored: dict, metric: str) -> _Run:
    examples = stored.get("examples", {})
    scores = np.asarray(examples.get(metric, []), float)
    return _Run(cell, stored["status"], tuple(examples.get("document", ())), scores)


def _group(model: str, dataset: str, name: str, runs: list[_Run], metric: str) -> Group | None:
    """The curves of one evaluation; None if no run ended well."""
    ended = [run for run in runs if run.status == "ok"]
    if not ended:
        return None
    for run in ended[1:]:
        if run.documents != ended[0].documents:
            first, other = (
                f"{one.cell['method']} seed {one.cell['seed']}" for one in (ended[0], run)
            )
            raise ValueError(
                f"evaluations.csv: {name} of {model}/{dataset}: {first} and {other} were scored on "
                "other examples; allowed: the same ones; remove their results, and run snakemake"
            )
    by_curve: dict[tuple, list[_Run]] = {}
    for run in runs:
        by_curve.setdefault((run.cell["method"], run.cell["rank"]), []).append(run)
    curves = [_curve(*key, of_curve) for key, of_curve in by_curve.items()]
    return Group(model, dataset, _compared_as(metric), len(ended[0].documents), curves)


def _curve(method: str, rank: int, runs: list[_Run]) -> Curve:
    ended = sorted((run for run in runs if run.status == "ok"), key=lambda run: run.cell["seed"])
    texts = []
    for run in runs:
        if run.status != "ok":
            texts.append(f"seed {run.cell['seed']} {run.status.replace('_', ' ')}")
    if len(ended) == 1:
        texts.append(ONE_SEED)
    scores = np.stack([run.scores for run in ended]) if ended else np.empty((0, 0))
    seeds = tuple(run.cell["seed"] for run in ended)
    return Curve(method, rank, seeds, scores, "; ".join(texts))


def _mean_group(parts: list[Group]) -> Group:
    """The curves that all evaluations of a mean have, at the seeds that all of these have."""
    examples = sum(part.examples for part in parts)
    curves = []
    for first in parts[0].curves:
        same = [_same_curve(part, first) for part in parts]
        if None in same:
            continue
        seeds = sorted(set.intersection(*(set(curve.seeds) for curve in same)))
        texts = [text for curve in same for text in curve.note.split("; ") if text]
        scores = np.empty((0, 0))
        if seeds:
            scores = _stratified([_of_seeds(curve, seeds) for curve in same])
        note = "; ".join(dict.fromkeys(texts))
        curves.append(Curve(first.method, first.rank, tuple(seeds), scores, note))
    return Group(parts[0].model, parts[0].dataset, parts[0].metric, examples, curves)


def _same_curve(part: Group, wanted: Curve) -> Curve | None:
    for curve in part.curves:
        if (curve.method, curve.rank) == (wanted.method, wanted.rank):
            return curve
    return None


def _of_seeds(curve: Curve, seeds: list[int]) -> NDArray:
    return curve.scores[np.searchsorted(curve.seeds, seeds)]


def _stratified(parts: list[NDArray]) -> NDArray:
    """Scores whose plain mean is the mean of the evaluations' means, of every seed.

    Each score is taken from its evaluation's mean over seeds and examples, scaled so that the
    evaluations count alike, and added to the mean of all. So the spread over examples is that
    within the evaluations.

    Args:
        parts: The scores (S, E) of each evaluation.
    """
    examples = sum(scores.shape[1] for scores in parts)
    whole = np.mean([scores.mean() for scores in parts])
    scaled = [
        (scores - scores.mean()) * examples / (len(parts) * scores.shape[1]) for scores in parts
    ]
    return whole + np.concatenate(scaled, axis=1)
