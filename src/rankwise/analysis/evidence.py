"""Estimates with intervals, and every pair of curves compared: what is better, what is tied, what is undecided.

Families: the pairs of one model, dataset and metric. Holm adjusts the p-values of their differences, and apart from these the
ones of their equivalence, so that neither a false "better" nor a false "tied" stands in a family more than once in twenty.
A pair whose interval lies inside the margin is tied even where it leaves 0 out: a difference too small to matter, shown beside.
`p_models` is about the trained models alone, on other examples, and decides nothing: with one seed it is all there is to test.
"""

import itertools
from math import isinf, log, nan
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankwise.analysis import statistics, tables
from rankwise.analysis.scores import ONE_SEED, Curve, Group, groups, mixed

ALPHA = 0.05
TEST = "t, paired by seed and example"
DRAWS = 1999  # exchanges of a permutation test
TOO_FEW = "examples too few for the margin, whatever the seeds"
ESTIMATE = [
    "model",
    "dataset",
    "metric",
    "method",
    "rank",
    "seeds",
    "examples",
    "estimate",
    "low",
    "high",
    "note",
]
COMPARISON = [
    "model", "dataset", "metric", "method_a", "rank_a", "method_b", "rank_b", "seeds", "examples", "difference", "low", "high",
    "p_value", "p_holm", "p_equivalence", "p_equivalence_holm", "margin", "verdict", "seeds_needed", "test", "p_models",
    "test_models", "note",
]  # fmt: skip


def evidence(request: dict, output: Path) -> None:
    """Write estimates and comparisons beside each other, from the tables of runs and examples there."""
    runs = tables.read(output.with_name("runs.csv"))
    found = groups(runs, pd.read_parquet(output.with_name("examples.parquet")))
    warnings = [f"Warning: {text}." for text in mixed(runs).values()]
    tables.write(estimates(found), output.with_name("estimates"), warnings)
    tables.write(
        comparisons(found, request["equivalence"]), output.with_name("comparisons"), warnings
    )


def estimates(found: list[Group]) -> pd.DataFrame:
    """One row a curve: its metric over seeds and examples, with a 95 % interval.

    Perplexity is exp of the mean loss, over seeds too, and so are the ends of its interval.
    """
    rows = [
        {
            **_head(group),
            "method": curve.method,
            "rank": curve.rank,
            "seeds": len(curve.seeds),
            **_estimate(curve, group),
        }
        for group in found
        for curve in group.curves
    ]
    return pd.DataFrame(rows, columns=ESTIMATE)


def _head(group: Group) -> dict:
    return {
        "model": group.model,
        "dataset": group.dataset,
        "metric": group.metric.name,
        "examples": group.examples,
    }


def _estimate(curve: Curve, group: Group) -> dict:
    note = {"note": curve.note or None}
    if not curve.seeds:
        return {"estimate": nan, "low": nan, "high": nan, **note}
    ends = statistics.mean(curve.scores)[:3]
    return {
        **dict(zip(("estimate", "low", "high"), map(group.metric.shown, ends), strict=True)),
        **note,
    }


def comparisons(found: list[Group], margins: dict[str, float]) -> pd.DataFrame:
    """One row a pair of curves: a less b, with the sign that makes a better a positive; of perplexities, of their logarithms.

    `margins`: accuracy_fraction, in fractions; perplexity_ratio, of two perplexities. Over the seeds that both curves have.
    """
    parts = [_family(group, margins) for group in found]
    frame = (
        pd.concat([part for part in parts if len(part)])
        if any(map(len, parts))
        else pd.DataFrame(columns=COMPARISON)
    )
    return frame[COMPARISON].astype({"seeds_needed": "Int64"}).reset_index(drop=True)


def margin_of(metric: str, margins: dict[str, float]) -> float:
    """The margin in the unit of a difference."""
    return (
        margins["accuracy_fraction"]
        if metric == "accuracy_fraction"
        else log(margins["perplexity_ratio"])
    )


def _family(group: Group, margins: dict[str, float]) -> pd.DataFrame:
    margin = margin_of(group.metric.name, margins)
    rows = [
        {**_head(group), **_pair(a, b, group, margin)}
        for a, b in itertools.combinations(group.curves, 2)
    ]
    frame = pd.DataFrame(rows, columns=COMPARISON)
    for p, adjusted in (("p_value", "p_holm"), ("p_equivalence", "p_equivalence_holm")):
        frame[adjusted] = statistics.holm(frame[p].astype(float))
    verdicts = [
        _verdict(*row)
        for row in zip(
            frame["difference"], frame["p_holm"], frame["p_equivalence_holm"], strict=True
        )
    ]
    return frame.assign(verdict=verdicts)


def _pair(a: Curve, b: Curve, group: Group, margin: float) -> dict:
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    head = {
        "method_a": a.method,
        "rank_a": a.rank,
        "method_b": b.method,
        "rank_b": b.rank,
        "seeds": len(seeds),
    }
    notes = [
        f"{one.name}: {note}"
        for one in (a, b)
        for note in one.note.split("; ")
        if note and note != ONE_SEED
    ]
    if not seeds:
        notes += ["no seed in common"] if a.seeds and b.seeds else []
        return {**head, "margin": margin, "test": "none", "note": "; ".join(notes)}
    one, other = (curve.scores[np.searchsorted(curve.seeds, seeds)] for curve in (a, b))
    gap = statistics.difference(group.metric.sign * one, group.metric.sign * other)
    needed = statistics.seeds_needed(gap, len(seeds), margin)
    notes += [ONE_SEED] * (len(seeds) == 1) + [TOO_FEW] * isinf(needed)
    return {
        **head,
        **dict(zip(("difference", "low", "high"), map(float, gap[:3]), strict=True)),
        "p_value": float(statistics.p_value(gap)),
        "p_equivalence": float(statistics.equivalence(gap, margin)),
        "margin": margin,
        "seeds_needed": None if isinf(needed) or np.isnan(needed) else int(needed),
        "test": TEST if len(seeds) > 1 else "one seed",
        **_of_models(one, other),
        "note": "; ".join(notes) or None,
    }


def _of_models(one: NDArray, other: NDArray) -> dict:
    """Whether these models, (S, E) scores each, would differ on examples not seen; of other seeds it tells nothing."""
    if len(one) == 1 and np.isin([one, other], (0, 1)).all():
        return {"p_models": statistics.mcnemar(one[0], other[0]), "test_models": "McNemar, exact"}
    return {
        "p_models": statistics.permutation(one, other, DRAWS, seed=0),
        "test_models": "permutation, within examples",
    }


def _verdict(difference: float, p: float, p_equivalence: float) -> str:
    if p_equivalence <= ALPHA:
        return "tied"
    if p <= ALPHA:
        return "a better" if difference > 0 else "b better"
    return "undecided"
