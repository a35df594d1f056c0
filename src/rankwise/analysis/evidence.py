"""Estimates with intervals, and every pair of curves compared: better, tied or undecided.

A family is all pairs of one model, dataset and metric that were run with two seeds or more. The
intervals of its differences are simultaneous: each has the level 1 - 0.05 / K in a family of K
pairs (Bonferroni), so all of a family hold at once in at least 95 % of studies. A verdict says what
the interval shows and nothing else, so it cannot contradict it, and at most one family in twenty
holds any false verdict.

Holm's procedure rejects a little more than this. The simultaneous intervals that fit it end at 0
for whatever it rejects (Strassburger & Bretz 2008), so they say nothing about a difference's size.

A pair whose interval lies inside the margin is tied even where the interval leaves 0 out: the
difference is real, but too small to matter, and is shown beside the verdict.

The interval of an estimate is of that curve alone and is not adjusted: two of them do not compare
two curves.

The column `p_models` is about the trained models alone, on other examples, and decides nothing.
With one seed nothing else can be tested.
"""

import itertools
from math import exp, inf, isnan, log, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankwise.analysis import metrics, model_tests, power, statistics, tables
from rankwise.analysis.partial_notes import notes
from rankwise.analysis.scores import ONE_SEED, Curve, Group, groups, mixed
from rankwise.core.metrics import DIFFERENCE, METRICS, Metric

ERROR = 0.05  # probability that a family holds a false verdict, or an interval that misses
TEST = "t, paired by seed and example"
LARGEST_EXPONENT = 700  # exp of more is no float
DRAWS = 1999  # exchanges of a permutation test
ESTIMATE = [
    "model", "dataset", "metric", "method", "rank", "seeds", "examples", "estimate", "low", "high",
    "note",
]  # fmt: skip
COMPARISON = [
    "model", "dataset", "metric", "method_a", "rank_a", "method_b", "rank_b", "seeds", "examples",
    "difference", "low", "high", "ratio", "ratio_low", "ratio_high", "pairs", "p_value",
    "p_adjusted", "p_equivalence", "p_equivalence_adjusted", "margin", "verdict", "seeds_needed",
    "test", "p_models", "test_models", "note",
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

    A metric of the kind LOGARITHM, such as perplexity, is exp of a mean over seeds and examples,
    and so are the ends of its interval.
    """
    rows = [_estimate(curve, group) for group in found for curve in group.curves]
    return pd.DataFrame(rows, columns=ESTIMATE)


def _estimate(curve: Curve, group: Group) -> dict:
    value, low, high = nan, nan, nan
    if curve.seeds:
        ends = statistics.mean(curve.scores)[:3]
        value, low, high = (metrics.shown(group.metric, end) for end in ends)
        if not group.metric.is_log:  # such a metric has bounds, which a symmetric interval ignores
            low, high = (_bounded(end, group.metric) for end in (low, high))
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


def _bounded(end: float, metric: Metric) -> float:
    """The end of an interval, not outside of the metric's bounds; nan stays nan."""
    return end if isnan(end) else min(max(end, metric.lowest), metric.highest)


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

    A difference is positive where a is better. That of two perplexities, or of two mean squared
    errors, is the difference of their logarithms. The intervals of a model and dataset are
    simultaneous: all hold at once in 95 % of studies.

    Args:
        found: Curves with their scores.
        margins: The smallest differences that matter, a study's `equivalence`: `accuracy_fraction`,
            in fractions, `perplexity_ratio`, the ratio of two perplexities, and so on.
    """
    families = [_family(group, margins) for group in found]
    families = [family for family in families if len(family)]
    frame = pd.concat(families) if families else pd.DataFrame(columns=COMPARISON)
    return frame[COMPARISON].astype({"seeds_needed": "Int64"}).reset_index(drop=True)


def margin_of(metric: str, margins: dict[str, float]) -> float:
    """The margin of a metric, in the unit of a difference."""
    margin = margins[METRICS[metric].margin]
    return log(margin) if METRICS[metric].is_log else margin


def _family(group: Group, margins: dict[str, float]) -> pd.DataFrame:
    """All pairs of a group, with simultaneous intervals and the verdicts that they show."""
    pairs = list(itertools.combinations(group.curves, 2))
    compared = sum(len(_shared_seeds(a, b)) > 1 for a, b in pairs)
    rule = _Rule(margin_of(group.metric.name, margins), compared)
    rows = [{**_group_columns(group), **_pair(a, b, group, rule)} for a, b in pairs]
    return pd.DataFrame(rows, columns=COMPARISON)


class _Rule(NamedTuple):
    """The rule that decides the pairs of a family."""

    margin: float
    pairs: int  # that are compared over seeds

    @property
    def level(self) -> float:
        """The level of each interval, so that all hold at once (Bonferroni)."""
        return 1 - ERROR / max(self.pairs, 1)


def _shared_seeds(a: Curve, b: Curve) -> list[int]:
    return [seed for seed in a.seeds if seed in b.seeds]


def _pair(a: Curve, b: Curve, group: Group, rule: _Rule) -> dict:
    """The columns of one pair."""
    seeds = _shared_seeds(a, b)
    row = {
        "method_a": a.method,
        "rank_a": a.rank,
        "method_b": b.method,
        "rank_b": b.rank,
        "seeds": len(seeds),
        "pairs": rule.pairs,
        "margin": rule.margin,
        "verdict": "undecided",
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
    gap = statistics.difference(sign * scores_a, sign * scores_b, level=rule.level)
    verdict = _verdict(gap, rule.margin)
    needed = power.Needed(None, "")
    if verdict == "undecided":
        needed = power.seeds_to_decide(gap, len(seeds), rule.margin, rule.level)
    if len(seeds) == 1:
        notes.append(ONE_SEED)
    if needed.reason:
        notes.append(needed.reason)
    return {
        **row,
        "difference": float(gap.value),
        "low": float(gap.low),
        "high": float(gap.high),
        **_ratio(gap, scores_a, scores_b, group, rule),
        **_p_values(gap, rule),
        "verdict": verdict,
        "seeds_needed": needed.seeds,
        "test": TEST if len(seeds) > 1 else "one seed",
        **_test_of_models(scores_a, scores_b),
        "note": "; ".join(notes) or None,
    }


def _ratio(
    gap: statistics.Estimate,
    scores_a: NDArray,  # (S, E)
    scores_b: NDArray,  # (S, E)
    group: Group,
    rule: _Rule,
) -> dict:
    """The metric of a over that of b, with its interval.

    The interval leaves 1 out where that of `gap` leaves 0 out. Correlations have no ratio, since
    they may be negative.
    """
    if group.metric.kind == DIFFERENCE:
        value, low, high = nan, nan, nan
    elif group.metric.is_log:  # `gap` is that of the logarithms, with the sign turned
        value, low, high = (_exp(-end) for end in (gap.value, gap.high, gap.low))
    else:
        value, low, high = statistics.ratio(scores_a, scores_b, rule.level)
    return {"ratio": value, "ratio_low": low, "ratio_high": high}


def _exp(exponent: float) -> float:
    return exp(exponent) if not exponent > LARGEST_EXPONENT else inf


def _p_values(gap: statistics.Estimate, rule: _Rule) -> dict:
    """p-values of a pair alone, and adjusted as its interval is.

    An adjusted value is at most ERROR where the interval leaves 0 out, or lies inside the margin.
    The interval is two-sided, so each of the two one-sided tests has half of its error.
    """
    p = float(statistics.p_value(gap))
    p_equivalence = float(statistics.equivalence(gap, rule.margin))
    return {
        "p_value": p,
        "p_adjusted": _adjusted(p, rule.pairs),
        "p_equivalence": p_equivalence,
        "p_equivalence_adjusted": _adjusted(p_equivalence, 2 * rule.pairs),
    }


def _adjusted(p: float, times: int) -> float:
    return p if isnan(p) else min(1.0, p * times)


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


def _verdict(gap: statistics.Estimate, margin: float) -> str:
    """The verdict that the interval of a difference shows; with one seed it is nan: undecided."""
    if -margin <= gap.low and gap.high <= margin:
        return "tied"
    if gap.low > 0:
        return "a better"
    return "b better" if gap.high < 0 else "undecided"
