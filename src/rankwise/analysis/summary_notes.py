"""The notes under the paper's table: its marks, the training, what is not equal."""

import pandas as pd

from rankwise.analysis import flags, tables
from rankwise.analysis.costs import Costs
from rankwise.analysis.scores import name
from rankwise.core.keys import GROUP
from rankwise.core.metrics import METRICS, Metric

NOTES = {
    "interval": (
        "In brackets: each curve's own 95 % interval over seeds and examples; two of them do not "
        "compare two curves."
    ),
    "one": "n is 1: one seed, no interval.",
    "best": "Bold: the best of a model and dataset, among curves of which every run ended well.",
    "tied": (
        "{mark} tied with the best: the difference is inside the margin, {margins} "
        "(simultaneous 95 % interval of the difference)."
    ),
    "undecided": "{mark} undecided: neither shown worse than the best nor tied with it.",
    "worse": "Unmarked: worse than the best (simultaneous 95 % interval of the difference).",
    "failed": "Not ranked: curves of which a run failed.",
    "peak_mib": "peak: of a training step, predicted from shapes.",
    "update_time_s": "update: median of the throughput profile.",
    "step_time_s": "step: mean of the training runs, with whatever else the machine did.",
    "start_time_s": (
        "start: what a method computed before the first step, mean of the runs; part of no "
        "other time or FLOPs."
    ),
}
# Column -> what it counts, in the note on the training.
TRAINING = {
    "effective_batch_size": "samples an update",
    "updates": "updates",
    "samples": "samples",
    "tokens": "tokens",
}


def notes(frame: pd.DataFrame, found: Costs, margins: dict[str, float]) -> list[str]:
    """The paragraphs under the table.

    Args:
        frame: The table that `summary` made.
        found: What the curves cost; its notes become warnings.
        margins: The smallest differences that matter, a study's `equivalence`.
    """
    legend = []
    for key in _names_of_notes(frame):
        text = NOTES[key].format(mark=tables.MARKS.get(key), margins=_margins(frame, margins))
        legend.append(text)
    texts = [*frame["warning"].dropna().unique(), *found.notes.values()]
    warnings = [f"Warning: {text}." for text in texts]
    return [" ".join(legend), _training(frame), *_flags(frame), *warnings]


def _names_of_notes(frame: pd.DataFrame) -> list[str]:
    """Which of NOTES the table needs, in their order."""
    ended_well = frame["status"] == "ok"
    is_needed = {
        "interval": (frame["n"] > 1).any(),
        "one": (frame["n"] == 1).any(),
        "best": (frame["best"] == "best").any(),
        "tied": (frame["best"] == "tied").any(),
        "undecided": (frame["best"] == "undecided").any(),
        "worse": ((frame["best"] == "") & ended_well).any(),
        "failed": (~ended_well).any(),
        "peak_mib": "peak_mib" in frame,
        "update_time_s": "update_time_s" in frame,
        "step_time_s": "step_time_s" in frame,
        "start_time_s": "start_time_s" in frame,
    }
    return [name for name in NOTES if is_needed[name]]


def _margins(frame: pd.DataFrame, margins: dict[str, float]) -> str:
    """The margins of the metrics that the table has: `1 point or a factor of 1.02`."""
    texts = []
    for metric in METRICS.values():
        if metric.shown[0] in frame:
            texts.append(_margin(metric, margins[metric.margin]))
    return " or ".join(dict.fromkeys(texts))


def _margin(metric: Metric, margin: float) -> str:
    if metric.is_log:
        return f"a factor of {margin:g}"
    if not metric.is_fraction:
        return f"{margin:g}"
    points = 100 * margin
    return "1 point" if points == 1 else f"{points:g} points"


def _training(frame: pd.DataFrame) -> str:
    """Batch, updates, samples and tokens of each model and dataset; a range where rows differ."""
    trained = frame[frame["updates"] > 0] if "updates" in frame else frame
    sentences = []
    for (model, dataset), rows in trained.groupby(GROUP, sort=False):
        amounts = [
            f"{_range(rows[name])} {unit}" for name, unit in TRAINING.items() if name in rows
        ]
        sentences.append(f"{model}/{dataset}: {', '.join(amounts)}.")
    return " ".join(sentences)


def _flags(frame: pd.DataFrame) -> list[str]:
    """Which curves may be trained too little, and the rules that say so."""
    flagged = frame[frame["flags"].notna()]
    if flagged.empty:
        return []
    curves = []
    for row in flagged.itertuples():
        curves.append(f"{row.model}/{row.dataset} {name(row.method, row.rank)}: {row.flags}")
    used = [flag for flag in flags.RULES if flagged["flags"].str.contains(flag, regex=False).any()]
    rules = [f"{flag[0].upper()}{flag[1:]}: {flags.RULES[flag]}." for flag in used]
    return [" ".join([f"Perhaps trained too little: {'; '.join(curves)}.", *rules])]


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f}"
