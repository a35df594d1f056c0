"""Signs that a curve was trained too little to be judged, each by a rule with a number in it.

The rules look at what a run recorded and at the rates that its search tried. They are warnings:
a flagged curve keeps its place in every table and test.
"""

from math import log

import numpy as np
import pandas as pd
import scipy

from rankwise.core.keys import CURVE

FALLING = "loss still falling"
CHANCE = "chance level"
EDGE = "best rate at the end of the grid"
LAST_PART = 0.25  # of the updates
LEAST_FALL = 0.05  # of the whole fall of the loss
FEWEST_EVALUATIONS = 4  # of the selection slice, the one before training included
CHANCE_LEVEL = 0.99  # share of classes guessed by majority that have fewer right answers
RULES = {
    FALLING: (
        "the last loss on the selection slice is the lowest, and the last quarter of the updates "
        f"brought more than {100 * LEAST_FALL:g} % of its whole fall"
    ),
    CHANCE: (
        "the run has no more right answers than always naming the most frequent class of the "
        f"reported split may have by luck (binomial, {100 * CHANCE_LEVEL:g} %); of texts, its loss "
        "is not below that of naming every token with the same probability. The learning rate may "
        "not suit this model: `search: auto` in the grid gives each method six to choose from"
    ),
    EDGE: "the search chose the lowest or the highest learning rate that it tried",
}


# One run ------------------------------------------------------------------------------------------


def of_run(result: dict) -> list[str]:
    """The flags of one training run, of its result; none where a rule cannot be applied.

    A method that trains nothing (`frozen`) has no flags: it was not trained too little.
    """
    trains = result["request"].get("method", {}).get("learning_rate") != 0
    if result["status"] != "ok" or not trains:
        return []
    is_flagged = {
        FALLING: _is_still_falling(result.get("history", [])),
        CHANCE: _is_at_chance(result),
    }
    return [flag for flag, is_set in is_flagged.items() if is_set]


def _is_still_falling(history: list[dict]) -> bool:
    """Whether the loss on the selection slice fell until the end, see RULES.

    The loss at the start of the last part is interpolated between two evaluations.
    """
    losses = [row.get("selection_loss_nats") for row in history]
    if len(losses) < FEWEST_EVALUATIONS or None in losses:
        return False
    updates = [row["update"] for row in history]
    first, *_, last = losses
    if last >= min(losses[:-1]):
        return False
    start = updates[0] + (1 - LAST_PART) * (updates[-1] - updates[0])
    before = float(np.interp(start, updates, losses))
    return before - last > LEAST_FALL * (first - last)


def _is_at_chance(result: dict) -> bool:
    metrics, split = result.get("metrics", {}), result.get("split")
    rows = [row["rows"] for row in _classes(result) if row["split"] == split]
    if sum(rows) and "accuracy_fraction" in metrics:
        examples = sum(rows)
        right = round(metrics["accuracy_fraction"] * examples)
        return bool(right <= scipy.stats.binom.ppf(CHANCE_LEVEL, examples, max(rows) / examples))
    request = result["request"]
    tokens = request.get("model", {}).get("architecture", {}).get("vocab_size")
    has_labels = "label" in request.get("dataset", {})  # numbers, tags: no token is predicted
    if not tokens or has_labels or _classes(result) or "eval_loss_nats" not in metrics:
        return False
    return metrics["eval_loss_nats"] >= log(tokens)


def _classes(result: dict) -> list[dict]:
    """Rows of each class and split, empty for a task without classes."""
    return result.get("data", {}).get("classes", [])


# Curves -------------------------------------------------------------------------------------------


def of_curves(runs: pd.DataFrame, search: pd.DataFrame | None) -> pd.Series:
    """The flags of each curve as one text: `loss still falling (2 of 3), ...`; None without any.

    Args:
        runs: The table of that name. The column `flags` has those of each run.
        search: The table of that name, if the study searches.

    Returns:
        The texts, by the keys of CURVE. In brackets: how many of the runs that ended well.
    """
    at_edge = {} if search is None else _edges(search)
    texts = {}
    for curve, rows in runs.groupby(CURVE, sort=False):
        ended_well = rows[rows["status"] == "ok"]
        counts = _counts(ended_well)
        parts = [
            f"{flag} ({count} of {len(ended_well)}{_rate(flag, ended_well)})"
            for flag, count in counts.items()
        ]
        if curve in at_edge:
            parts.append(at_edge[curve])
        texts[curve] = ", ".join(parts) or None
    index = pd.MultiIndex.from_tuples(texts, names=CURVE) if texts else None
    return pd.Series(list(texts.values()), index, dtype=object)


def _rate(flag: str, runs: pd.DataFrame) -> str:
    """Behind `chance level`: the learning rate, if the runs share one."""
    if flag != CHANCE or "learning_rate" not in runs:
        return ""
    rates = runs["learning_rate"].dropna().unique()
    return f", learning rate {rates[0]:g}" if len(rates) == 1 else ""


def _counts(runs: pd.DataFrame) -> dict[str, int]:
    """Flag -> how many runs have it, in the order of RULES."""
    if "flags" not in runs:
        return {}
    named = [text.split("; ") for text in runs["flags"].fillna("") if text]
    counts = {flag: sum(flag in flags for flags in named) for flag in RULES}
    return {flag: count for flag, count in counts.items() if count}


def _edges(search: pd.DataFrame) -> dict[tuple, str]:
    """Curves whose chosen learning rate is the lowest or highest of several that were tried."""
    at_edge = {}
    for curve, rows in search.groupby(CURVE, sort=False):
        tried = sorted(rows["learning_rate"].dropna().unique())
        chosen = rows.loc[rows["selected"].astype(bool), "learning_rate"]
        if len(tried) < 2 or not len(chosen):
            continue
        for end, rate in (("lowest", tried[0]), ("highest", tried[-1])):
            if chosen.iloc[0] == rate:
                at_edge[curve] = f"{EDGE} ({rate:g}, the {end} of {len(tried)})"
    return at_edge
