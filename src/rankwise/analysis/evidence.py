"""Estimates with intervals, and every pair of curves compared: better, tied or undecided.

A family is all pairs of one model, dataset and metric. Holm adjusts the p-values of the differences
within a family, and separately those of equivalence, so that at most one family in twenty holds a
false "better", and at most one a false "tied".

A pair whose interval lies inside the margin is tied even where the interval leaves 0 out: the
difference is real, but too small to matter, and is shown beside the verdict.

The column `p_models` is about the trained models alone, on other examples, and decides nothing.
With one seed nothing else can be tested.
"""

import itertools
from math import isinf, isnan, log, nan
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankwise.analysis import model_tests, statistics, tables
from rankwise.analysis.partial_notes import notes
from rankwise.analysis.scores import ONE_SEED, Curve, Group, groups, mixed

ALPHA = 0.05
TEST = "t, paired by seed and example"
DRAWS = 1999  # exchanges of a permutation test
TOO_FEW = "examples too few for the margin, whatever the seeds"
ESTIMATE = [
    "model", "dataset", "metric", "method", "rank", "seeds", "examples", "estimate", "low", "high",
    "note",
]  # fmt: skip
COMPARISON = [
    "model", "dataset", "metric", "method_a", "rank_a", "method_b", "rank_b", "seeds", "examples",
    "difference", "low", "high", "p_value", "p_holm", "p_equivalence", "p_equivalence_holm",
    "margin", "verdict", "seeds_needed", "test", "p_models", "test_models", "note",
]  # fmt: skip


def evidence(request: dict, output: Path) -> None:
    """Write the tables of estimates and comparisons, from those of runs and examples.

    Args:
        request: `equivalence` holds the margins, as in `comparisons`. `absent` names results that
            are not there.
        output: Path of one of the two tables.
    """
    runs = tables.read(output.with_name("runs.csv"))
    found = groups(runs, pd.read_parquet(output.with_name("examples.parquet")))
    warnings = notes(request, runs) + [f"Warning: {text}." for text in mixed(runs).values()]
    tables.write(estimates(found), output.with_name("estimates"), warnings)
    compared = comparisons(found, request["equivalence"])
    tables.write(compared, output.with_name("comparisons"), warnings)


# Estimates ----------------------------------------------------------------------------------------


def estimates(found: list[Group]) -> pd.DataFrame:
    """One row for each curve: its metric over seeds and examples, with a 95 % interval.

    Perplexity is exp of the mean loss over seeds and examples, and so are the ends of its interval.
    """
    rows = [_estimate(curve, group) for group in found for curve in group.curves]
    return pd.DataFrame(rows, columns=ESTIMATE)


def _estimate(curve: Curve, group: Group) -> dict:
    value, low, high = nan, nan, nan
    if curve.seeds:
        value, low, high = map(group.metric.shown, statistics.mean(curve.scores)[:3])
    return {
        **_group_columns(group),
        "method": curve.method,
        "rank": curve.rank,
        "seeds": len(curve.seeds),
        "estimate": value,
        "low": low,
        "high": high,
        "note": curve.note or None,
    }


def _group_columns(group: Group) -> dict:
    return {
        "model": group.model,
        "dataset": group.dataset,
        "metric": group.metric.name,
        "examples": group.examples,
    }


# Comparisons --------------------------------------------------------------------------------------


def comparisons(found: list[Group], margins: dict[str, float]) -> pd.DataFrame:
    """One row for each pair of curves of a model and dataset: a minus b, over shared seeds.

    A difference is positive where a is better. That of two perplexities is the difference of their
    logarithms.

    Args:
        found: Curves with their scores.
        margins: The smallest differences that matter: `accuracy_fraction`, in fractions, and
            `perplexity_ratio`, the ratio of two perplexities.
    """
    families = [_family(group, margins) for group in found]
    families = [family for family in families if len(family)]
    frame = pd.concat(families) if families else pd.DataFrame(columns=COMPARISON)
    return frame[COMPARISON].astype({"seeds_needed": "Int64"}).reset_index(drop=True)


def margin_of(metric: str, margins: dict[str, float]) -> float:
    """The margin of a metric, in the unit of a difference."""
    if metric == "accuracy_fraction":
        return margins["accuracy_fraction"]
    return log(margins["perplexity_ratio"])  # differences of perplexities are those of logarithms


def _family(group: Group, margins: dict[str, float]) -> pd.DataFrame:
    """All pairs of a group, with adjusted p-values and verdicts."""
    margin = margin_of(group.metric.name, margins)
    pairs = itertools.combinations(group.curves, 2)
    rows = [{**_group_columns(group), **_pair(a, b, group, margin)} for a, b in pairs]
    frame = pd.DataFrame(rows, columns=COMPARISON)
    frame["p_holm"] = statistics.holm(frame["p_value"].astype(float))
    frame["p_equivalence_holm"] = statistics.holm(frame["p_equivalence"].astype(float))
    deciding = zip(frame["difference"], frame["p_holm"], frame["p_equivalence_holm"], strict=True)
    return frame.assign(verdict=[_verdict(*numbers) for numbers in deciding])


def _pair(a: Curve, b: Curve, group: Group, margin: float) -> dict:
    """The columns of one pair that do not depend on the rest of its family."""
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    row = {
        "method_a": a.method,
        "rank_a": a.rank,
        "method_b": b.method,
        "rank_b": b.rank,
        "seeds": len(seeds),
        "margin": margin,
    }
    notes = [*_failed_runs(a), *_failed_runs(b)]
    if not seeds:
        if a.seeds and b.seeds:
            notes.append("no seed in common")
        return {**row, "test": "none", "note": "; ".join(notes)}
    # A curve's seeds are sorted, and so are its scores: searchsorted finds the shared rows.
    scores_a = a.scores[np.searchsorted(a.seeds, seeds)]
    scores_b = b.scores[np.searchsorted(b.seeds, seeds)]
    sign = group.metric.sign
    gap = statistics.difference(sign * scores_a, sign * scores_b)
    needed = statistics.seeds_needed(gap, len(seeds), margin)
    if len(seeds) == 1:
        notes.append(ONE_SEED)
    if isinf(needed):
        notes.append(TOO_FEW)
    return {
        **row,
        "difference": float(gap.value),
        "low": float(gap.low),
        "high": float(gap.high),
        "p_value": float(statistics.p_value(gap)),
        "p_equivalence": float(statistics.equivalence(gap, margin)),
        "seeds_needed": None if isinf(needed) or isnan(needed) else int(needed),
        "test": TEST if len(seeds) > 1 else "one seed",
        **_test_of_models(scores_a, scores_b),
        "note": "; ".join(notes) or None,
    }


def _failed_runs(curve: Curve) -> list[str]:
    """A curve's notes on failed runs, with its name.

    That it has one seed is left out: a pair says that of the seeds that both curves have.
    """
    notes = [note for note in curve.note.split("; ") if note and note != ONE_SEED]
    return [f"{curve.name}: {note}" for note in notes]


def _test_of_models(
    scores_a: NDArray,  # (S, E)
    scores_b: NDArray,  # (S, E)
) -> dict:
    """Whether these trained models would differ on examples that were not seen."""
    is_accuracy = np.isin([scores_a, scores_b], (0, 1)).all()
    if len(scores_a) == 1 and is_accuracy:
        p = model_tests.mcnemar(scores_a[0], scores_b[0])
        return {"p_models": p, "test_models": "McNemar, exact"}
    p = model_tests.permutation(scores_a, scores_b, DRAWS, seed=0)
    return {"p_models": p, "test_models": "permutation, within examples"}


def _verdict(difference: float, p: float, p_equivalence: float) -> str:
    if p_equivalence <= ALPHA:
        return "tied"
    if p <= ALPHA:
        return "a better" if difference > 0 else "b better"
    return "undecided"
