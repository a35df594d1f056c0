"""The page's first sentences: what each curve keeps of the reference's quality, and at what cost.

Only words are made here; the numbers and verdicts are those of analysis/standings.py.
"""

from math import exp, isinf, isnan

import pandas as pd

from rankwise.analysis import flags, power
from rankwise.analysis.standings import (
    BEST,
    BETTER,
    NAMED,
    NO_PAIR,
    TIED,
    UNDECIDED,
    WORSE,
    Comparison,
    EvaluationKey,
    Key,
    Standing,
    Standings,
    of_evaluations,
    standings,
)
from rankwise.report import style
from rankwise.report.html import claims, cost_words

MOST_CURVES = 10  # of a model and dataset that get a sentence
ROUNDS_TO_EQUAL = 0.05  # per cent
Sentences = list[str]


def answer(
    frames: dict[str, pd.DataFrame],
    labels: dict[str, str],
    named: dict | None = None,
    means: dict[str, list[str]] | None = None,
) -> list[tuple[str, Sentences]]:
    """Headings with sentences.

    They are about the evaluations of a study that has some, then about what each model and dataset
    reports of training, then about the published numbers.

    Args:
        frames: The page's tables by name.
        labels: The label of each method.
        named: The study's `reference`, if it names one.
        means: Name of a mean of evaluations -> those that it is of. These get no sentences of their
            own.
    """
    parts = _evaluations(frames, labels, named, means or {})
    behind = ", metric of training" if parts else ""
    found = standings(frames, named) if "estimates" in frames else {}
    parts += [
        (f"{' on '.join(key)}{behind}", _group(group, labels, named))
        for key, group in found.items()
    ]
    parts += [
        (" on ".join(key), _state_range(profile, labels))
        for key, profile in _profiles(frames, labels).items()
        if key not in found
    ]
    parts.append(("Published numbers", _claims(frames.get("claims"))))
    return [(title, sentences) for title, sentences in parts if sentences]


# Evaluations -----------------------------------------------------------------------------------


def _evaluations(
    frames: dict[str, pd.DataFrame],
    labels: dict[str, str],
    named: dict | None,
    means: dict[str, list[str]],
) -> list[tuple[str, Sentences]]:
    """Headings with sentences for each mean, and for each evaluation that is part of none."""
    if "evaluations_summary" not in frames:
        return []
    found = of_evaluations(frames, named)
    in_a_mean = {part for name in means for part in means[name]}
    parts = []
    for key in sorted(found, key=lambda key: key[2] not in means):
        if key[2] in in_a_mean:
            continue
        sentences = _group(found[key], labels, named)
        if key[2] in means:
            names = ", ".join(means[key[2]])
            sentences.append(f"The mean counts alike: {names}. Each is in the table Evaluations.")
        parts.append((_evaluation_title(key, frames["evaluations_summary"]), sentences))
    return parts


def _evaluation_title(key: EvaluationKey, summary: pd.DataFrame) -> str:
    """`gpt2 on alpaca: boolq, 3,270 examples`."""
    model, dataset, name = key
    is_own = (summary["model"] == model) & (summary["dataset"] == dataset)
    count = int(summary.loc[is_own & (summary["evaluation"] == name), "examples"].iloc[0])
    return f"{model} on {dataset}: {name}, {count:,} {_plural('example', count)}"


# Quality ---------------------------------------------------------------------------------------


def _group(group: Standings, labels: dict[str, str], named: dict | None) -> Sentences:
    """The reference, the other curves from the best to the worst, and what the words mean."""
    others, hidden = group.others[:MOST_CURVES], len(group.others) - MOST_CURVES
    sentences = [_reference(group, labels, named)]
    reference = style.curve_name(group.reference.method, group.reference.rank, labels)
    sentences += [_curve(curve, group, labels, reference) for curve in others]
    if hidden > 0:
        sentences.append(f"{hidden} more {_plural('curve', hidden)}: in the table Summary.")
    return [*sentences, *_explanations(group)]


def _reference(group: Standings, labels: dict[str, str], named: dict | None) -> str:
    """The sentence on the reference: its name, its quality, and why it is the reference."""
    curve = group.reference
    name = style.curve_name(curve.method, curve.rank, labels)
    value = _value(curve.value, group)
    details = [f"{curve.seeds} {_plural('seed', curve.seeds)}"]
    if not isnan(curve.low):
        low, high = _value(curve.low, group), _value(curve.high, group)
        details.insert(0, f"its own 95 % interval {low} to {high}")
    reason = ""
    if named and group.chosen != NAMED:
        wanted = style.curve_name(named["method"], named.get("rank", 0), labels)
        reason = f" {wanted}, the study's reference, has no result here."
    elif group.chosen == BEST and group.others:
        reason = " It is the best curve; full fine-tuning has no result here."
    size = cost_words.adapter(curve)
    size = f" It takes {size} to store." if size else ""
    return (
        f"The reference is {name}, with {_metric(group)} {value}{_unit(group)} "
        f"({', '.join(details)}).{reason}{size}{_warnings(curve)}"
    )


def _curve(curve: Standing, group: Standings, labels: dict[str, str], reference: str) -> str:
    """One curve: what it keeps of the reference, at what cost, and what the comparison shows."""
    name = style.curve_name(curve.method, curve.rank, labels)
    if not curve.seeds:
        return f"{name}: no run ended well ({curve.note})."
    kept = f"{_quality(curve, group, reference)}{cost_words.costs(curve)}"
    return f"{name} {kept}: {_verdict(curve.against, group)}.{_warnings(curve)}"


def _quality(curve: Standing, group: Standings, reference: str) -> str:
    """`keeps 98.0 % of Full AdamW's accuracy (95 % interval 96.9 to 99.1)`, or its value alone."""
    against = curve.against
    if against.verdict == NO_PAIR or isnan(against.ratio):
        return f"has {_metric(group)} {_value(curve.value, group)}{_unit(group)}"
    ratio = _ratio(against.ratio, group)
    interval = ""
    if not isnan(against.low):
        low, high = _ratio(against.low, group), _ratio(against.high, group)
        interval = f" (95 % interval {low} to {high})"
    label = group.metric.label
    if _in_percent(group):
        verb = "keeps" if against.ratio <= 1 else "reaches"
        if group.metric.sign < 0:
            verb = "has"  # nobody wants to keep an error
        return f"{verb} {ratio} % of {reference}'s {label}{interval}"
    return f"has {ratio} times {reference}'s {label}{interval}"


def _verdict(against: Comparison, group: Standings) -> str:
    """The verdict of the comparison with the reference, in words."""
    texts = {
        BETTER: "better",
        WORSE: "worse",
        TIED: f"tied, the difference is smaller than {_margin(group)}",
        NO_PAIR: "not compared, the two have no random seed in common",
    }
    if against.verdict != UNDECIDED:
        return texts[against.verdict]
    if against.seeds == 1:
        return "not decided, one seed gives no interval"
    with_seeds = f"not decided with {against.seeds} seeds"
    if against.seeds_needed:
        return f"{with_seeds}, {against.seeds_needed} would decide"
    reasons = {
        power.MORE_SEEDS: f", more than {power.MOST_SEEDS} would be needed",
        power.TOO_FEW_EXAMPLES: ", and the examples are too few for more seeds to decide",
    }
    return f"{with_seeds}{reasons.get(against.reason, '')}"


def _warnings(curve: Standing) -> str:
    """Runs that failed, and signs of too little training."""
    failed = f" Not all of its runs ended well: {curve.note}." if curve.note else ""
    flagged = f" Perhaps trained too little: {curve.flags}." if curve.flags else ""
    return failed + flagged


def _explanations(group: Standings) -> Sentences:
    """Explanations of intervals, numbers of seeds and flags, as far as they occur."""
    texts = []
    if any(not isnan(curve.against.low) for curve in group.others):
        texts.append(
            "The 95 % intervals against the reference are simultaneous: in 95 % of studies all "
            "those under this heading hold at once."
        )
    if any(curve.against.seeds_needed for curve in group.others):
        texts.append(
            f"A number of seeds that would decide does so with a probability of "
            f"{100 * power.POWER:.0f} %, if the difference and the spread are as found here."
        )
    shown = " ".join(curve.flags for curve in [group.reference, *group.others])
    texts += [
        f"{flag[0].upper()}{flag[1:]}: {rule}."
        for flag, rule in flags.RULES.items()
        if flag in shown
    ]
    return [" ".join(texts)] if texts else []


# Numbers ---------------------------------------------------------------------------------------


def _in_percent(group: Standings) -> bool:
    return group.metric.is_fraction


def _metric(group: Standings) -> str:
    return f"{group.metric.phrase} of"


def _unit(group: Standings) -> str:
    return " %" if _in_percent(group) else ""


def _value(value: float, group: Standings) -> str:
    return f"{100 * value:.1f}" if _in_percent(group) else f"{value:.4g}"


def _ratio(ratio: float, group: Standings) -> str:
    """A ratio as it is shown: of fractions in per cent."""
    if isinf(ratio):
        return "any amount"
    if not _in_percent(group):
        return f"{ratio:.3g}"
    # Two digits where one would show a ratio as 100.0 that is shown to be another.
    percent = 100 * ratio
    return f"{percent:.2f}" if 0 < abs(percent - 100) < ROUNDS_TO_EQUAL else f"{percent:.1f}"


def _margin(group: Standings) -> str:
    metric = group.metric
    if metric.is_log:
        return f"a factor of {exp(group.margin):.4g}"
    if not metric.is_fraction:
        return f"{group.margin:.3g}"
    points = 100 * group.margin
    return "1 point" if points == 1 else f"{points:.3g} points"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


# Memory from shapes ---------------------------------------------------------------------------


def _profiles(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> dict[Key, pd.DataFrame]:
    memory = frames.get("memory")
    if memory is None:
        return {}
    return style.by_panel(memory[memory["status"] == "ok"], labels)


def _state_range(profile: pd.DataFrame, labels: dict[str, str]) -> Sentences:
    """The range of optimizer state over the curves that have any, where nothing was trained."""
    has_state = profile["optimizer_state_bytes"].astype(float) > 0
    rows = profile[has_state].sort_values("optimizer_state_bytes", kind="stable")
    if len(rows) < 2:
        return []
    least, most = rows.iloc[0], rows.iloc[-1]
    factor = float(most["optimizer_state_bytes"]) / float(least["optimizer_state_bytes"])
    low, high = (
        f"{cost_words.size_text(float(row['optimizer_state_bytes']))} "
        f"({style.curve_name(row['method'], row['rank'], labels)})"
        for row in (least, most)
    )
    factor_text = style.number(factor)
    return [f"Optimizer state ranges from {low} to {high}, a factor of {factor_text}."]


# Published numbers -----------------------------------------------------------------------------


def _claims(table: pd.DataFrame | None) -> Sentences:
    if table is None or not len(table):
        return []
    decided = claims.decided(table)
    others = claims.others_text(table)
    if not len(decided):
        return [f"This study decides none of {len(table)}; {others}."]
    start = f"This study decides {len(decided)} of {len(table)}: {claims.counts_text(decided)}."
    return [f"{start} {others[0].upper()}{others[1:]}." if others else start]
