"""Each curve beside a reference: what it keeps of its quality, at what cost, and how sure that is.

Numbers come from the tables of estimates and comparisons and from costs.py. The intervals are the
simultaneous ones of all pairs of a model and dataset, so any curve may be the reference, even one
that was chosen by its result.
"""

from math import inf, nan
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import evaluations, flags
from rankwise.analysis.costs import costs
from rankwise.analysis.power import MORE_SEEDS, TOO_FEW_EXAMPLES
from rankwise.analysis.scores import ONE_SEED
from rankwise.core.keys import GROUP
from rankwise.core.metrics import METRICS, Metric

FULL = "full"  # the method that is the reference unless the study names another one
# What a comparison with the reference shows.
BETTER, WORSE, TIED, UNDECIDED = "better", "worse", "tied", "undecided"
NO_PAIR = "no pair"  # the two curves share no seed

NAMED, BEST = "named", "best"  # beside FULL, why a curve is the reference

Key = tuple[str, str]  # model and dataset
EvaluationKey = tuple[str, str, str]  # model, dataset and evaluation
Curve = tuple[str, int]  # method and rank


class Comparison(NamedTuple):
    """A curve against the reference, on the seeds that both have.

    Attributes:
        ratio: The curve's metric over the reference's, 1 where they are equal.
        low: Lower end of the simultaneous 95 % interval of the ratio; nan with one seed.
        high: Its upper end.
        seeds: How many seeds both have.
        verdict: BETTER, WORSE, TIED, UNDECIDED or NO_PAIR.
        seeds_needed: How many seeds would decide an undecided pair; None if that has no number.
        reason: MORE_SEEDS or TOO_FEW_EXAMPLES where there is no number, else empty.
    """

    ratio: float
    low: float
    high: float
    seeds: int
    verdict: str
    seeds_needed: int | None
    reason: str


NOT_COMPARED = Comparison(nan, nan, nan, 0, NO_PAIR, None, "")


class Standing(NamedTuple):
    """One curve.

    Attributes:
        method: Its method.
        rank: Its rank, 0 for none.
        value: Its metric, as the table of estimates has it; nan if no run ended well.
        low: Lower end of its own 95 % interval; nan with one seed.
        high: Its upper end.
        seeds: How many of its runs ended well.
        note: What became of the other runs; empty if all ended well.
        flags: Signs of too little training, see flags.py; empty without any.
        costs: Cost -> amount, where it was measured.
        shares: Cost -> amount over the reference's, where both were measured.
        against: The comparison with the reference; None for the reference itself.
    """

    method: str
    rank: int
    value: float
    low: float
    high: float
    seeds: int
    note: str
    flags: str
    costs: dict[str, float]
    shares: dict[str, float]
    against: Comparison | None


class Standings(NamedTuple):
    """The curves of a model and dataset, in training or on one evaluation.

    Attributes:
        metric: The metric by which they are compared.
        margin: The smallest difference that matters, in the unit of a difference; nan for one
            curve.
        reference: What the others are compared with.
        chosen: Why it is the reference: NAMED by the study, FULL, or the BEST.
        others: The other curves, the best first; then curves with a failed run, then curves without
            a run that ended well.
    """

    metric: Metric
    margin: float
    reference: Standing
    chosen: str
    others: list[Standing]


def standings(frames: dict[str, pd.DataFrame], named: dict | None = None) -> dict[Key, Standings]:
    """The standings of each model and dataset that has a run that ended well.

    Args:
        frames: Tables by name: runs, estimates, comparisons, and those with costs and searches that
            the study has.
        named: The study's `reference`: its `method`, and its `rank` if that is given.

    Raises:
        ValueError: As `costs` does.
    """
    costs_by_curve = costs(frames).table
    flags_by_curve = flags.of_curves(frames["runs"], frames.get("search"))
    found = {}
    for key, rows in frames["estimates"].groupby(GROUP, sort=False):
        curves = _curves(rows, costs_by_curve, flags_by_curve)
        if any(curve.seeds for curve in curves.values()):
            pairs = frames["comparisons"]
            pairs = pairs[(pairs["model"] == key[0]) & (pairs["dataset"] == key[1])]
            found[key] = _group(METRICS[rows["metric"].iloc[0]], curves, pairs, named)
    return found


def of_evaluations(
    frames: dict[str, pd.DataFrame], named: dict | None = None
) -> dict[EvaluationKey, Standings]:
    """The standings on each evaluation of a model and dataset that has a run that ended well.

    Args:
        frames: Tables by name: evaluations_summary and evaluations_comparisons; with runs also
            those with costs, which the standings then have. Flags are signs of training, and are
            not repeated here.
        named: The study's `reference`, as in `standings`.

    Raises:
        ValueError: As `costs` does.
    """
    costs_by_curve = costs(frames).table if "runs" in frames else pd.DataFrame()
    keys = [*GROUP, evaluations.NAME]
    compared = frames["evaluations_comparisons"]
    found = {}
    for key, rows in frames["evaluations_summary"].groupby(keys, sort=False):
        curves = _curves(rows, costs_by_curve, {})
        if any(curve.seeds for curve in curves.values()):
            is_own = (compared[keys] == list(key)).all(axis="columns")
            metric = evaluations.metric_named(rows["metric"].iloc[0])
            found[key] = _group(metric, curves, compared[is_own], named)
    return found


def _curves(
    rows: pd.DataFrame, costs_by_curve: pd.DataFrame, flags_by_curve: dict[tuple, str]
) -> dict[Curve, Standing]:
    """The curves of a group, without their comparisons."""
    curves = {}
    for row in rows.itertuples():
        curve = (row.model, row.dataset, row.method, row.rank)
        amounts = _known(costs_by_curve, curve)
        curves[row.method, row.rank] = _standing(row, amounts, flags_by_curve.get(curve) or "")
    return curves


def _standing(row: tuple, amounts: dict[str, float], flag: str) -> Standing:
    """A curve without its comparison, from a row of the table of estimates."""
    notes = [] if pd.isna(row.note) else row.note.split("; ")
    return Standing(
        method=row.method,
        rank=int(row.rank),
        value=float(row.estimate),
        low=float(row.low),
        high=float(row.high),
        seeds=int(row.seeds),
        note="; ".join(note for note in notes if note != ONE_SEED),
        flags=flag,
        costs=amounts,
        shares={},
        against=None,
    )


def _known(costs_by_curve: pd.DataFrame, curve: tuple) -> dict[str, float]:
    """Cost -> amount of one curve, where it was measured."""
    if curve not in costs_by_curve.index:
        return {}
    return {cost: float(amount) for cost, amount in costs_by_curve.loc[curve].dropna().items()}


def _group(
    metric: Metric, curves: dict[Curve, Standing], pairs: pd.DataFrame, named: dict | None
) -> Standings:
    """The curves of one group against their reference."""

    def place(curve: Standing) -> tuple:
        """As in the summary, a curve with a failed run is not the best: it comes after others."""
        return not curve.seeds, bool(curve.note), -metric.sign * curve.value if curve.seeds else 0

    ranked = sorted(curves.values(), key=place)
    reference, chosen = _reference(ranked, named)
    against = _comparisons(pairs, reference)
    others = []
    for curve in ranked:
        if curve is not reference:
            comparison = against.get((curve.method, curve.rank), NOT_COMPARED)
            shares = _shares(curve.costs, reference.costs)
            others.append(curve._replace(shares=shares, against=comparison))
    margin = float(pairs["margin"].iloc[0]) if len(pairs) else nan
    return Standings(metric, margin, reference, chosen, others)


def _reference(ranked: list[Standing], named: dict | None) -> tuple[Standing, str]:
    """The curve that the others are compared with, and why; it has a run that ended well.

    Of a method with several ranks it is the highest, unless the study names one.
    """
    sound = [curve for curve in ranked if curve.seeds]
    wanted = [(NAMED, named["method"], named.get("rank"))] if named else []
    for chosen, method, rank in [*wanted, (FULL, FULL, None)]:
        # A variant counts as its method: full@slow stands for full.
        of_method = [
            curve
            for curve in sound
            if method in (curve.method, curve.method.partition("@")[0])
            and rank in (None, curve.rank)
        ]
        if of_method:
            # An exact name comes before a variant of it; of equals, the better one.
            return max(of_method, key=lambda curve: (curve.method == method, curve.rank)), chosen
    return sound[0], BEST


def _comparisons(pairs: pd.DataFrame, reference: Standing) -> dict[Curve, Comparison]:
    """Curve -> how it compares with the reference, over whichever side of a pair that is."""
    name = (reference.method, reference.rank)
    found = {}
    for row in pairs.itertuples():
        a, b = (row.method_a, row.rank_a), (row.method_b, row.rank_b)
        if b == name:
            found[a] = _comparison(row, (row.ratio, row.ratio_low, row.ratio_high), "a better")
        elif a == name:
            turned = (_inverse(row.ratio), _inverse(row.ratio_high), _inverse(row.ratio_low))
            found[b] = _comparison(row, turned, "b better")
    return found


def _comparison(row: tuple, ratios: tuple[float, float, float], won: str) -> Comparison:
    """One comparison; `won` is the verdict with which the curve is better than the reference."""
    words = {TIED: TIED, UNDECIDED: UNDECIDED, won: BETTER}
    needed = None if pd.isna(row.seeds_needed) else int(row.seeds_needed)
    notes = "" if pd.isna(row.note) else row.note
    reasons = [reason for reason in (MORE_SEEDS, TOO_FEW_EXAMPLES) if reason in notes]
    return Comparison(
        *(float(ratio) for ratio in ratios),
        seeds=int(row.seeds),
        verdict=words.get(row.verdict, WORSE) if row.seeds else NO_PAIR,
        seeds_needed=needed,
        reason="".join(reasons),
    )


def _inverse(ratio: float) -> float:
    """1 / ratio, where a ratio without an upper end is inf."""
    return inf if ratio == 0 else 1 / ratio


def _shares(amounts: dict[str, float], of_reference: dict[str, float]) -> dict[str, float]:
    """Cost -> amount over the reference's, where that has any."""
    return {
        cost: amount / of_reference[cost]
        for cost, amount in amounts.items()
        if of_reference.get(cost)
    }
