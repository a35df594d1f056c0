"""Quality against each cost: the Pareto front, and the best curve within each budget.

Costs are taken as exact. How surely a curve is on the front is the share of random resamples of
seeds and examples in which it is; curves that share seeds or examples get the same resamples of
them. It is a share of draws, not a test: with few seeds it is too sure (see variance.py on
percentiles of a bootstrap).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankwise.analysis import tables
from rankwise.analysis.costs import DISTURBED, Costs, costs
from rankwise.analysis.fronts import front_probability, is_on_front
from rankwise.analysis.partial_notes import notes
from rankwise.analysis.scores import Group, groups, mixed, name
from rankwise.analysis.summary import verdicts
from rankwise.core.keys import CURVE, CURVE_IN_GROUP, GROUP
from rankwise.core.metrics import METRICS

DRAWS = 1000
DRAWS_AT_ONCE = 50  # bounds memory
COSTS = (
    "trainable_parameters", "adapter_bytes", "kept_bytes", "peak_bytes", "measured_peak_bytes",
    "step_flops", "update_time_s", "step_time_s", "energy_joules",
)  # fmt: skip
POINT = ["amount", "estimate", "low", "high"]  # cost, then the metric with its interval
FRONT = [
    *GROUP, "metric", "cost", *CURVE_IN_GROUP, *POINT, "on_front", "front_probability", "note",
]  # fmt: skip
VIEW = [*GROUP, "cost", "budget", "metric", *CURVE_IN_GROUP, *POINT, "tied", "undecided"]


def views(request: dict, output: Path) -> None:
    """Write the tables `fronts` and `views`, from the tables in the same folder.

    Args:
        request: `tables` names the tables to read, `absent` the results that are not there.
        output: Path of one of the two tables.
    """
    frames = {name: tables.read(output.with_name(f"{name}.csv")) for name in request["tables"]}
    found = costs(frames)
    points = _points(frames, found)
    scored = groups(frames["runs"], pd.read_parquet(output.with_name("examples.parquet")))
    texts = [*mixed(frames["runs"]).values(), *found.notes.values()]
    warnings = [f"Warning: {text}." for text in texts]
    warnings = notes(request, frames["runs"]) + warnings
    tables.write(fronts(points, scored), output.with_name("fronts"), warnings)
    tables.write(ladders(points, frames["comparisons"]), output.with_name("views"), warnings)


def _points(frames: dict[str, pd.DataFrame], found: Costs) -> pd.DataFrame:
    """One row for each curve and cost, with the cost's `amount` beside the estimate.

    Costs that fewer than two curves of a model and dataset have are left out. Curves with a failed
    run or without this cost are kept with `ranked=False`, the missing cost named in `note`.
    """
    known = [cost for cost in COSTS if cost in found.table]
    amounts = found.table[known].stack(future_stack=True).rename("amount")
    by_cost = amounts.rename_axis([*CURVE, "cost"]).reset_index()
    is_shared = by_cost.groupby([*GROUP, "cost"])["amount"].transform("count") > 1
    runs = frames["runs"]
    ended_well = (runs["status"] == "ok").groupby([runs[key] for key in CURVE])
    points = frames["estimates"].merge(by_cost[is_shared], on=CURVE)
    points = points.join(ended_well.all().rename("all_ended_well"), on=CURVE)
    is_measured = points["amount"].notna()
    missing = points["cost"].map(_missing).where(~is_measured, "")
    parts = zip(points["note"].fillna(""), missing, strict=True)
    notes = ["; ".join(filter(None, texts)) or None for texts in parts]
    return points.assign(note=notes, ranked=is_measured & points["all_ended_well"])


def _missing(cost: str) -> str:
    """Why a curve has no number of a cost."""
    reason = "not measured, or tainted" if cost in DISTURBED else "not measured"
    return f"no {cost}: {reason}"


# Fronts -------------------------------------------------------------------------------------------


def fronts(points: pd.DataFrame, scored: list[Group]) -> pd.DataFrame:
    """One row for each curve and cost: whether it is on the front, and how surely.

    Args:
        points: What `views` makes of the tables: a row for each curve and cost.
        scored: The curves with their scores, for the draws.

    Returns:
        The table; `front_probability` is empty for curves of one seed.
    """
    draws = {(group.model, group.dataset): _draws(group) for group in scored}
    parts = []
    for (model, dataset, _), rows in points.groupby([*GROUP, "cost"], sort=False):
        parts.append(_front(rows, draws[model, dataset]))
    return pd.concat(parts)[FRONT].reset_index(drop=True) if parts else pd.DataFrame(columns=FRONT)


def _front(rows: pd.DataFrame, draws: dict[tuple, NDArray]) -> pd.DataFrame:
    """The curves of one model, dataset and cost, with their place on or off the front."""
    ranked = rows[rows["ranked"]]
    on_front = pd.Series(pd.NA, rows.index, dtype="boolean")
    probability = pd.Series(np.nan, rows.index)
    if len(ranked):
        amounts = ranked["amount"].to_numpy(float)
        values = ranked["estimate"].to_numpy(float) * METRICS[ranked["metric"].iloc[0]].sign
        curves = zip(ranked["method"], ranked["rank"], strict=True)
        drawn_values = np.array([draws[curve] for curve in curves])  # (N, DRAWS)
        on_front[ranked.index] = is_on_front(amounts, values)
        probability[ranked.index] = front_probability(amounts[:, None], drawn_values)
        probability = probability.where(rows["seeds"] > 1)
    return rows.assign(on_front=on_front, front_probability=probability)


def _draws(group: Group) -> dict[tuple, NDArray]:
    """(method, rank) -> the curve's mean score in DRAWS resamples; more is better."""
    chance = np.random.default_rng(0)
    curves = [curve for curve in group.curves if curve.seeds]
    seed_weights = {}  # seeds -> (DRAWS, S): how often each is drawn, as a share
    for seeds in dict.fromkeys(curve.seeds for curve in curves):
        count = len(seeds)
        seed_weights[seeds] = chance.multinomial(count, [1 / count] * count, DRAWS) / count
    scores = np.concatenate([curve.scores for curve in curves])  # (all seeds of all curves, E)
    batches = range(0, DRAWS, DRAWS_AT_ONCE)
    sums = [scores @ _example_counts(group.examples, chance) for _ in batches]
    means = np.concatenate(sums, axis=1) / group.examples  # (all seeds of all curves, DRAWS)
    ends = np.cumsum([len(curve.seeds) for curve in curves])
    draws = {}
    for curve, seed_means in zip(curves, np.split(means, ends[:-1]), strict=True):
        weighted = seed_weights[curve.seeds].T * seed_means  # (S, DRAWS)
        draws[curve.method, curve.rank] = group.metric.sign * weighted.sum(0)
    return draws


def _example_counts(examples: int, chance: np.random.Generator) -> NDArray:
    """How often each example is drawn, (examples, DRAWS_AT_ONCE)."""
    picks = chance.integers(examples, size=(DRAWS_AT_ONCE, examples))
    counts = [np.bincount(pick, minlength=examples) for pick in picks]
    return np.stack(counts, axis=1).astype(float)


# Budgets ------------------------------------------------------------------------------------------


def ladders(points: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """One row for each budget: the best curve that costs no more, and those not shown worse.

    The budgets of a cost are the amounts that occur.

    Args:
        points: What `views` makes of the tables: a row for each curve and cost.
        comparisons: The table of that name.
    """
    rows = []
    for key, curves in points[points["ranked"]].groupby([*GROUP, "cost"], sort=False):
        for budget in sorted(curves["amount"].unique()):
            head = dict(zip([*GROUP, "cost"], key, strict=True))
            affordable = curves[curves["amount"] <= budget]
            rows.append({**head, "budget": budget, **_best_of(affordable, comparisons)})
    return pd.DataFrame(rows, columns=VIEW)


def _best_of(curves: pd.DataFrame, comparisons: pd.DataFrame) -> dict:
    """The best of these curves, and the curves that are not shown to be worse."""
    best = curves.loc[(curves["estimate"] * METRICS[curves["metric"].iloc[0]].sign).idxmax()]
    verdict_of = verdicts(comparisons, tuple(best[CURVE]))
    names: dict[str, list[str]] = {"tied": [], "undecided": []}
    for row in curves.itertuples():
        verdict = verdict_of.get((row.model, row.dataset, row.method, row.rank))
        if verdict in names:
            names[verdict].append(name(row.method, row.rank))
    listed = {verdict: ", ".join(curve_names) or None for verdict, curve_names in names.items()}
    return {**best[["metric", *CURVE_IN_GROUP, *POINT]], **listed}
