"""The page's first sentences: what is better, what is tied, and what it costs.

They say only what the tables support.
"""

from math import exp

import pandas as pd

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import style
from rankwise.report.html.claims import ROW_ORDER
from rankwise.report.html.comparisons import against_best
from rankwise.report.html.groups import Group, Key

MAX_NAMED = 4  # a sentence names at most so many curves
REFERENCE = "full"  # costs are compared with this method, if the study has it
Sentences = list[str]


def answer(
    groups_by_panel: dict[Key, Group], frames: dict[str, pd.DataFrame], labels: dict[str, str]
) -> list[tuple[str, Sentences]]:
    """Headings with sentences: for each model and dataset, then for the published numbers."""
    memory = frames.get("memory")
    profiles = {}
    if memory is not None:
        profiles = style.by_panel(memory[memory["status"] == "ok"], labels)
    parts = []
    for key in dict.fromkeys([*groups_by_panel, *profiles]):
        group, profile = groups_by_panel.get(key), profiles.get(key)
        sentences = _panel(key, group, profile, frames.get("comparisons"), labels)
        parts.append((" on ".join(key), sentences))
    parts.append(("Published numbers", _claims(frames.get("claims"))))
    return [(title, sentences) for title, sentences in parts if sentences]


def _panel(
    key: Key,
    group: Group | None,
    profile: pd.DataFrame | None,
    comparisons: pd.DataFrame | None,
    labels: dict[str, str],
) -> Sentences:
    """The sentences about one model and dataset: quality, then costs."""
    sentences: Sentences = []
    if group is not None:
        pairs = None if comparisons is None else against_best(comparisons, key, group)
        sentences += _quality(group, pairs, labels)
        if profile is not None and pairs is not None:
            sentences += _cheapest(group, profile, pairs, labels)
    if profile is not None:
        sentences += _state_range(profile, labels)
    return sentences


# Quality ---------------------------------------------------------------------------------------


def _quality(group: Group, pairs: pd.DataFrame | None, labels: dict[str, str]) -> Sentences:
    first = _best_sentence(group, labels)
    if group.curves["seeds"].max() == 1:
        return [
            first,
            "Every curve has one seed: there are no intervals, and no difference between curves is "
            "established.",
        ]
    if pairs is None or not len(pairs):
        return [first, "No table compares the curves, so this order is not a ranking."]
    return [first, *_verdicts(pairs, group, labels)]


def _best_sentence(group: Group, labels: dict[str, str]) -> str:
    best = group.best
    name, seeds = style.curve_name(best["method"], best["rank"], labels), int(best["seeds"])
    details = f"{seeds} seed{'s' if seeds > 1 else ''}"
    if pd.notna(best.get("low")):
        low, high = _value_text(best["low"], group), _value_text(best["high"], group)
        details = f"95 % interval {low} to {high}, {details}"
    value = _value_text(best["value"], group)
    if group.is_accuracy:
        return f"{name} has the highest accuracy: {value} % ({details})."
    return f"{name} has the lowest perplexity: {value} ({details})."


def _value_text(value: float, group: Group) -> str:
    return f"{value:.1f}" if group.is_accuracy else f"{value:.4g}"


def _verdicts(pairs: pd.DataFrame, group: Group, labels: dict[str, str]) -> Sentences:
    """Which curves are tied with the best, which are worse, and which are not decided."""
    names: dict[str, list[str]] = {}
    for row in pairs.sort_values("difference", ascending=False, kind="stable").itertuples():
        names.setdefault(row.verdict, []).append(_gap_text(row, group, labels))
    nothing_decided = len(names.get("undecided", [])) == len(pairs)
    texts = {
        "tied": "Tied with it, the difference within the margin:",
        "worse": "Worse:",
        "better": "Better than it, seed by seed, though its own estimate is not:",
        "undecided": "These runs decide nothing about" if nothing_decided else "Not decided:",
    }
    return [f"{text} {_listed(names[key])}." for key, text in texts.items() if key in names]


def _gap_text(row: tuple, group: Group, labels: dict[str, str]) -> str:
    """A curve with its difference to the best curve."""
    name, difference = style.curve_name(row.method, row.rank, labels), float(row.difference)
    if not group.is_accuracy:
        # The difference is in the logarithm of the perplexity, and positive if it is lower.
        return f"{name} (perplexity times {exp(-difference):.3g})"
    points = f"{difference * 100:+.1f}"
    if points[1:] == "0.0":
        points = "0.0"  # without a sign
    return f"{name} ({points.replace('-', style.MINUS)} points)"


def _listed(names: list[str]) -> str:
    """Names in a sentence: `a, b and c`, or the first few of many."""
    hidden = len(names) - MAX_NAMED
    if hidden > 0:
        return f"{', '.join(names[:MAX_NAMED])} and {hidden} more"
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


# Costs -----------------------------------------------------------------------------------------


def _cheapest(
    group: Group, profile: pd.DataFrame, pairs: pd.DataFrame, labels: dict[str, str]
) -> Sentences:
    """Among the best curve and the curves tied with it, the one with the least optimizer state."""
    curves = [(group.best["method"], group.best["rank"])]
    if len(pairs):
        tied = pairs[pairs["verdict"] == "tied"]
        curves += zip(tied["method"], tied["rank"], strict=True)
    all_sizes = profile.set_index(CURVE_IN_GROUP)["optimizer_state_bytes"].astype(float)
    sizes = all_sizes[[curve for curve in curves if curve in all_sizes.index]]
    if not len(sizes):
        return []
    method, rank = sizes.idxmin()
    name, least = style.curve_name(method, rank, labels), sizes.min()
    start = f"{name} keeps" if len(sizes) == 1 else f"Of these, {name} keeps the least:"
    saving = _saving_text(profile, least, labels)
    return [f"{start} {_size_text(least)} of optimizer state{saving}."]


def _saving_text(profile: pd.DataFrame, size_bytes: float, labels: dict[str, str]) -> str:
    """`, 75 % less than Full AdamW`, or nothing if it is not less."""
    is_reference = profile["method"] == REFERENCE
    references = profile.loc[is_reference, "optimizer_state_bytes"].astype(float)
    if not len(references) or references.iloc[0] <= size_bytes:
        return ""
    percent = 100 * (1 - size_bytes / references.iloc[0])
    return f", {percent:.0f} % less than {labels[REFERENCE]}"


def _state_range(profile: pd.DataFrame, labels: dict[str, str]) -> Sentences:
    """The range of optimizer state over the curves that have any."""
    has_state = profile["optimizer_state_bytes"].astype(float) > 0
    rows = profile[has_state].sort_values("optimizer_state_bytes", kind="stable")
    if len(rows) < 2:
        return []
    least, most = rows.iloc[0], rows.iloc[-1]
    factor = float(most["optimizer_state_bytes"]) / float(least["optimizer_state_bytes"])
    low, high = (
        f"{_size_text(float(row['optimizer_state_bytes']))} "
        f"({style.curve_name(row['method'], row['rank'], labels)})"
        for row in (least, most)
    )
    factor_text = style.number(factor)
    return [f"Optimizer state ranges from {low} to {high}, a factor of {factor_text}."]


def _size_text(size_bytes: float) -> str:
    unit_bytes, unit = style.byte_unit(size_bytes)
    return f"{style.number(size_bytes / unit_bytes)} {unit}"


# Published numbers -----------------------------------------------------------------------------


def _claims(table: pd.DataFrame | None) -> Sentences:
    if table is None or not len(table):
        return []
    counts = table["verdict"].value_counts(sort=False)
    known = [verdict for verdict in ROW_ORDER if verdict in counts]
    others = [verdict for verdict in counts.index if verdict not in ROW_ORDER]
    texts = [f"{counts[verdict]} {verdict}" for verdict in [*known, *others]]
    return [f"Of {len(table)}: {', '.join(texts)}."]
