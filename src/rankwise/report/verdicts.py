"""Which curves a table of comparisons decides between, which it finds tied, and the groups it leaves together."""

import itertools

import pandas as pd

Curve = tuple[str, int]  # method and rank
DECIDED = ("a better", "b better")


def pairs(comparisons: pd.DataFrame) -> dict[frozenset[Curve], str]:
    """Two curves -> `decided`, `tied` or `undecided`; over several datasets decided if one of them is, tied only if all are."""
    found: dict[frozenset[Curve], set[str]] = {}
    for row in comparisons.itertuples():
        key = frozenset([(row.method_a, row.rank_a), (row.method_b, row.rank_b)])
        found.setdefault(key, set()).add("decided" if row.verdict in DECIDED else row.verdict)
    return {key: _joint(words) for key, words in found.items()}


def _joint(words: set[str]) -> str:
    return "decided" if "decided" in words else "tied" if words == {"tied"} else "undecided"


def cover(order: list[Curve], joined: set[frozenset[Curve]]) -> list[list[Curve]]:
    """Few groups, each in the order given, of which every two are joined; every joined pair is together in one of them.

    Greedy: a group starts from the first pair that none has yet, and grows by the curve that brings the most such pairs.
    """
    near = {
        one: {other for other in order if one != other and frozenset([one, other]) in joined}
        for one in order
    }
    left = {pair for pair in map(frozenset, itertools.combinations(order, 2)) if pair in joined}
    found = []
    for pair in map(frozenset, itertools.combinations(order, 2)):
        if pair in left:
            group = _grown(set(pair), order, near, left)
            left -= set(map(frozenset, itertools.combinations(group, 2)))
            found.append([one for one in order if one in group])
    return found


def _grown(
    group: set[Curve],
    order: list[Curve],
    near: dict[Curve, set[Curve]],
    left: set[frozenset[Curve]],
) -> set[Curve]:
    while fitting := [one for one in order if one not in group and group <= near[one]]:
        group = group | {
            max(fitting, key=lambda one: sum(frozenset([one, other]) in left for other in group))
        }
    return group
