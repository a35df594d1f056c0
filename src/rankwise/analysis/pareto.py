"""Quality against each cost: which curves are on the front, how surely, and what is best within each budget.

Costs are taken as exact. The share of draws in which a curve is on the front comes from resampled seeds and examples, the
same ones for all curves that share them; it is a share of draws, no test: with few seeds it is too sure.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankwise.analysis import statistics, tables
from rankwise.analysis.costs import CELL, Costs, costs
from rankwise.analysis.scores import CURVE, GROUP, Group, groups, mixed, name
from rankwise.analysis.summary import SIGN, verdicts

DRAWS = 1000
AT_ONCE = 50  # draws, to bound memory
COSTS = (
    "trainable_parameters", "kept_bytes", "peak_bytes", "measured_peak_bytes", "step_flops", "update_time_s", "step_time_s",
    "energy_joules",
)  # fmt: skip
FRONT = [
    *GROUP,
    "metric",
    "cost",
    *CURVE,
    "amount",
    "estimate",
    "low",
    "high",
    "on_front",
    "front_probability",
    "note",
]
VIEW = [
    *GROUP,
    "cost",
    "budget",
    "metric",
    *CURVE,
    "amount",
    "estimate",
    "low",
    "high",
    "tied",
    "undecided",
]


def views(request: dict, output: Path) -> None:
    """Write the fronts and the views at equal cost, from the tables beside them."""
    frames = {name: tables.read(output.with_name(f"{name}.csv")) for name in request["tables"]}
    found = costs(frames)
    points = _points(frames, found)
    scored = groups(frames["runs"], pd.read_parquet(output.with_name("examples.parquet")))
    warnings = [
        f"Warning: {text}." for text in [*mixed(frames["runs"]).values(), *found.notes.values()]
    ]
    tables.write(fronts(points, scored), output.with_name("fronts"), warnings)
    tables.write(ladders(points, frames["comparisons"]), output.with_name("views"), warnings)


def _points(frames: dict[str, pd.DataFrame], found: Costs) -> pd.DataFrame:
    """One row a curve and cost that at least two curves of its model and dataset have: `amount` beside the estimate.

    A curve of which a run failed, or without that cost, stays, but is not `ranked`; its note says why.
    """
    have = (
        found.table[[cost for cost in COSTS if cost in found.table]]
        .stack(future_stack=True)
        .rename("amount")
    )
    long = have.rename_axis([*CELL, "cost"]).reset_index()
    shared = long.groupby([*GROUP, "cost"])["amount"].transform("count") > 1
    whole = (
        (frames["runs"]["status"] == "ok")
        .groupby([frames["runs"][key] for key in CELL])
        .all()
        .rename("whole")
    )
    points = frames["estimates"].merge(long[shared], on=CELL).join(whole, on=CELL)
    lacking = points["amount"].isna()
    lost = np.where(lacking, points["cost"].map("no {}: not measured".format), "")
    notes = [
        "; ".join(filter(None, both)) or None
        for both in zip(points["note"].fillna(""), lost, strict=True)
    ]
    return points.assign(note=notes, ranked=~lacking & points["whole"])


def fronts(points: pd.DataFrame, scored: list[Group]) -> pd.DataFrame:
    """One row a curve and cost: `on_front`, no other ranked curve costs no more and is worth no less; of the means.

    `front_probability`: the share of draws in which it is; empty for one seed.
    """
    draws = {(group.model, group.dataset): _draws(group) for group in scored}
    parts = [
        _front(rows, draws[key[:2]]) for key, rows in points.groupby([*GROUP, "cost"], sort=False)
    ]
    return pd.concat(parts)[FRONT].reset_index(drop=True) if parts else pd.DataFrame(columns=FRONT)


def _front(rows: pd.DataFrame, draws: dict[tuple, NDArray]) -> pd.DataFrame:
    ranked = rows[rows["ranked"]]
    amounts, values = (
        ranked["amount"].to_numpy(float),
        (ranked["estimate"] * ranked["metric"].map(SIGN)).to_numpy(float),
    )
    drawn = np.array(
        [draws[curve] for curve in zip(ranked["method"], ranked["rank"], strict=True)]
    ).reshape(len(ranked), -1)
    shares = pd.Series(
        statistics.front_probability(amounts[:, None], drawn) if len(ranked) else [],
        ranked.index,
        dtype=float,
    )
    on_front = pd.Series(
        statistics.pareto(amounts, values) if len(ranked) else [], ranked.index, dtype="boolean"
    )
    return rows.assign(
        on_front=on_front.reindex(rows.index),
        front_probability=shares.where(ranked["seeds"] > 1).reindex(rows.index),
    )


def _draws(group: Group) -> dict[tuple, NDArray]:
    """(method, rank) -> its mean score, more is better, on DRAWS resamples of seeds and examples."""
    chance = np.random.default_rng(0)
    curves = [curve for curve in group.curves if curve.seeds]
    by_seeds = {seeds: chance.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), DRAWS) / len(seeds)
                for seeds in dict.fromkeys(curve.seeds for curve in curves)}  # fmt: skip
    stacked = np.concatenate([curve.scores for curve in curves])
    by_seed = np.concatenate(
        [stacked @ _counts(group.examples, chance) for _ in range(0, DRAWS, AT_ONCE)], axis=1
    )
    own = np.split(by_seed / group.examples, np.cumsum([len(curve.seeds) for curve in curves])[:-1])
    return {
        (curve.method, curve.rank): group.metric.sign * (by_seeds[curve.seeds].T * part).sum(0)
        for curve, part in zip(curves, own, strict=True)
    }


def _counts(examples: int, chance: np.random.Generator) -> NDArray:
    """How often each example is drawn, (examples, AT_ONCE)."""
    picks = chance.integers(examples, size=(AT_ONCE, examples))
    return np.stack([np.bincount(pick, minlength=examples) for pick in picks], axis=1).astype(float)


def ladders(points: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """One row a budget, the costs that occur: the best curve that costs no more, and the others that are tied or undecided."""
    rows = [
        {
            **dict(zip(VIEW, (*key, budget), strict=False)),
            **_within(some[some["amount"] <= budget], comparisons),
        }
        for key, some in points[points["ranked"]].groupby([*GROUP, "cost"], sort=False)
        for budget in sorted(some["amount"].unique())
    ]
    return pd.DataFrame(rows, columns=VIEW)


def _within(rows: pd.DataFrame, comparisons: pd.DataFrame) -> dict:
    best = rows.loc[(rows["estimate"] * rows["metric"].map(SIGN)).idxmax()]
    against = verdicts(comparisons, tuple(best[CELL]))
    others = {
        name(row.method, row.rank): against.get(tuple(getattr(row, key) for key in CELL))
        for row in rows.itertuples()
    }
    named = {
        word: ", ".join(who for who, found in others.items() if found == word) or None
        for word in ("tied", "undecided")
    }
    return {**best[["metric", *CURVE, "amount", "estimate", "low", "high"]], **named}
