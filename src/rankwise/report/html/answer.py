"""The page's first sentences: what is better, what is tied, what it costs. Only what the tables support."""

from math import exp

import pandas as pd

from rankwise.report import style
from rankwise.report.html.claims import DECIDED
from rankwise.report.html.costs import against_best
from rankwise.report.html.marks import CURVE
from rankwise.report.html.quality import Group

LISTED = 4  # curves that a sentence names
REFERENCE = "full"  # what costs are compared with, where the study has it


def answer(
    found: dict[tuple[str, str], Group], frames: dict[str, pd.DataFrame], labels: dict[str, str]
) -> list[tuple[str, list[str]]]:
    """(heading, sentences) for each model and dataset that was trained or profiled, then for the published numbers."""
    memory = frames.get("memory")
    profiled = {} if memory is None else style.by_panel(memory[memory["status"] == "ok"], labels)
    parts = []
    for key in dict.fromkeys([*found, *profiled]):
        group, rows = found.get(key), profiled.get(key)
        said = [] if group is None else _quality(key, group, frames.get("comparisons"), labels)
        cheap = (
            [] if group is None else _cheapest(key, group, rows, frames.get("comparisons"), labels)
        )
        said += cheap or ([] if rows is None else _costs(rows, labels))
        parts.append((" on ".join(key), said))
    claims = _claims(frames.get("claims"))
    return [(title, said) for title, said in (*parts, *claims) if said]


# Quality ----------------------------------------------------------------------------------------------------------------


def _quality(
    key: tuple[str, str], group: Group, table: pd.DataFrame | None, labels: dict[str, str]
) -> list[str]:
    best = _best(group)
    name, seeds = style.curve_name(best["method"], best["rank"], labels), int(best["seeds"])
    interval = ""
    if pd.notna(best.get("low")):
        interval = f"95 % interval {number(best['low'], group)} to {number(best['high'], group)}, "
    side = "highest" if group.metric == "accuracy_fraction" else "lowest"
    value = f"{number(best['value'], group)}{' %' if group.factor == 100 else ''}"
    counted = f"{interval}{seeds} seed{'s' * (seeds > 1)}"
    first = f"{name} has the {side} {group.title.partition(' ')[0]}: {value} ({counted})."
    if int(group.curves["seeds"].max()) == 1:
        return [
            first,
            "Every curve has one seed: there are no intervals, and no difference between curves is established.",
        ]
    pairs = pd.DataFrame() if table is None else against_best(table, key, group)
    return [
        first,
        *(
            _verdicts(pairs, group, labels)
            if len(pairs)
            else ["No table compares the curves: read no ranking into it."]
        ),
    ]


def _best(group: Group) -> pd.Series:
    return group.curves.sort_values(
        "value", ascending=group.metric == "perplexity", kind="stable"
    ).iloc[0]


def number(value: float, group: Group) -> str:
    """A value of the group's metric, as text."""
    return f"{value:.1f}" if group.factor == 100 else f"{value:.4g}"


def _verdicts(pairs: pd.DataFrame, group: Group, labels: dict[str, str]) -> list[str]:
    """Which curves are tied with the best, worse, or neither."""
    pairs = pairs.sort_values("difference", ascending=False, kind="stable")
    names = {
        v: [_gap(row, group, labels) for row in rows.itertuples()]
        for v, rows in pairs.groupby("verdict", sort=False)
    }
    said = []
    if tied := names.get("tied"):
        said.append(f"Tied with it, the difference within the margin: {listed(tied)}.")
    if worse := names.get("worse"):
        said.append(f"Worse: {listed(worse)}.")
    if better := names.get("better"):
        said.append(
            f"Better than it, seed by seed, though its own estimate is not: {listed(better)}."
        )
    if open_ := names.get("undecided"):
        few = "These runs decide nothing about" if len(open_) == len(pairs) else "Not decided:"
        said.append(f"{few} {listed(open_)}.")
    return said


def _gap(row: tuple, group: Group, labels: dict[str, str]) -> str:
    name, gap = style.curve_name(row.method, row.rank, labels), float(row.difference)
    if group.factor == 100:
        points = f"{gap * 100:+.1f}".replace("-", style.MINUS)
        return f"{name} ({'0.0' if points[1:] == '0.0' else points} points)"
    return f"{name} (perplexity times {exp(-gap):.3g})"


def listed(names: list[str]) -> str:
    """Names in a sentence, the first few of many."""
    shown, more = names[:LISTED], len(names) - LISTED
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


# Costs ------------------------------------------------------------------------------------------------------------------


def _cheapest(
    key: tuple[str, str],
    group: Group,
    rows: pd.DataFrame | None,
    table: pd.DataFrame | None,
    labels: dict[str, str],
) -> list[str]:
    """Of the best and what is tied with it, the curve with the least optimizer state."""
    if rows is None or table is None:
        return []
    pairs, best = against_best(table, key, group), _best(group)
    tied = pairs[pairs["verdict"] == "tied"] if len(pairs) else pairs
    curves = [
        (best["method"], best["rank"]),
        *(zip(tied["method"], tied["rank"], strict=True) if len(tied) else []),
    ]
    sizes = rows.set_index(CURVE)["optimizer_state_bytes"].astype(float)
    sizes = sizes[[curve for curve in curves if curve in sizes.index]]
    if not len(sizes):
        return []
    method, rank = sizes.idxmin()
    name = style.curve_name(method, rank, labels)
    least = f"{name} keeps" if len(sizes) == 1 else f"Of these, {name} keeps the least:"
    return [
        f"{least} {size(sizes.min())} of optimizer state{_against(rows, sizes.min(), labels)}.",
        *_costs(rows, labels),
    ]


def _against(rows: pd.DataFrame, least: float, labels: dict[str, str]) -> str:
    full = rows.loc[(rows["method"] == REFERENCE), "optimizer_state_bytes"].astype(float)
    if not len(full) or full.iloc[0] <= least:
        return ""
    return f", {100 * (1 - least / full.iloc[0]):.0f} % less than {labels[REFERENCE]}"


def _costs(rows: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """The range of optimizer state over the curves."""
    rows = rows[rows["optimizer_state_bytes"].astype(float) > 0].sort_values(
        "optimizer_state_bytes", kind="stable"
    )
    if len(rows) < 2:
        return []
    ends = [
        (style.curve_name(r["method"], r["rank"], labels), float(r["optimizer_state_bytes"]))
        for _, r in rows.iloc[[0, -1]].iterrows()
    ]
    (low, least), (high, most) = ends
    factor = style.number(most / least)
    return [
        f"Optimizer state runs from {size(least)} ({low}) to {size(most)} ({high}), a factor of {factor}."
    ]


def size(value: float) -> str:
    """Bytes in a unit that fits."""
    one, unit = style.byte_unit(value)
    return f"{style.number(value / one)} {unit}"


def _claims(table: pd.DataFrame | None) -> list[tuple[str, list[str]]]:
    if table is None or not len(table):
        return []
    counts = table["verdict"].value_counts(sort=False)
    counts = counts[sorted(counts.index, key=lambda verdict: (*DECIDED, verdict).index(verdict))]
    words = [f"{count} {verdict}" for verdict, count in counts.items()]
    return [("Published numbers", [f"Of {len(table)}: {', '.join(words)}."])]
