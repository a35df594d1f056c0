"""The verdict on each pair of curves in a table of comparisons, and groups of open pairs."""

import itertools

import pandas as pd

Curve = tuple[str, int]  # method and rank
Pair = frozenset[Curve]
DECIDED = ("a better", "b better")


def pair_verdicts(comparisons: pd.DataFrame) -> dict[Pair, str]:
    """The verdict on each pair of curves: `decided`, `tied` or `undecided`.

    A pair that was compared on several datasets is decided if one of them decides it, and tied
    only if it is tied on all of them.
    """
    verdicts_by_pair: dict[Pair, set[str]] = {}
    for row in comparisons.itertuples():
        pair = frozenset([(row.method_a, row.rank_a), (row.method_b, row.rank_b)])
        verdict = "decided" if row.verdict in DECIDED else row.verdict
        verdicts_by_pair.setdefault(pair, set()).add(verdict)
    return {pair: _joint(verdicts) for pair, verdicts in verdicts_by_pair.items()}


def _joint(verdicts: set[str]) -> str:
    if "decided" in verdicts:
        return "decided"
    return "tied" if verdicts == {"tied"} else "undecided"


def cover(order: list[Curve], joined: set[Pair]) -> list[list[Curve]]:
    """Cover the joined pairs with few groups of curves.

    Any two curves of a group are joined, and every joined pair is together in some group. (The
    groups are a clique cover of the edges of a graph.) The method is greedy: a group starts from
    the first pair that no group has yet, and grows by the curve that brings the most such pairs.

    Args:
        order: all curves; each group has this order.
        joined: the pairs that must be together.
    """
    neighbours = {curve: _joined_to(curve, order, joined) for curve in order}
    all_pairs = [frozenset(pair) for pair in itertools.combinations(order, 2)]
    uncovered = {pair for pair in all_pairs if pair in joined}
    groups = []
    for pair in all_pairs:
        if pair not in uncovered:
            continue
        group = _grown(set(pair), order, neighbours, uncovered)
        uncovered -= {frozenset(inner) for inner in itertools.combinations(group, 2)}
        groups.append([curve for curve in order if curve in group])
    return groups


def _joined_to(curve: Curve, order: list[Curve], joined: set[Pair]) -> set[Curve]:
    return {other for other in order if frozenset([curve, other]) in joined and other != curve}


def _grown(
    group: set[Curve], order: list[Curve], neighbours: dict[Curve, set[Curve]], uncovered: set[Pair]
) -> set[Curve]:
    def uncovered_pairs(curve: Curve) -> int:
        return sum(frozenset([curve, member]) in uncovered for member in group)

    while True:
        fitting = [curve for curve in order if curve not in group and group <= neighbours[curve]]
        if not fitting:
            return group
        group = group | {max(fitting, key=uncovered_pairs)}
