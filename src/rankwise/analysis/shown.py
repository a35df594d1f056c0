"""How people see the columns of tables: headings, intervals, marks, digits.

Markdown and LaTeX share it; CSV and Parquet hold the values as they are.
"""

import pandas as pd

from rankwise.core.metrics import METRICS

# Value of a column `best` -> how people see it; the best itself is bold.
MARKS = {"tied": "\N{DAGGER}", "undecided": "\N{DOUBLE DAGGER}"}
# Columns of a table with `best` that people see in its marks or in the notes under it.
UNSEEN = frozenset({
    "best", "flags", "warning", "effective_batch_size", "updates", "samples", "tokens", "device",
    "device_name",
})  # fmt: skip
HEADINGS = {
    "trainable_parameters": "trainable parameters",
    "adapter_mib": "adapter (MiB)",
    "optimizer_state_mib": "optimizer state (MiB)",
    "peak_mib": "peak (MiB)",
    "measured_peak_mib": "measured peak (MiB)",
    "step_time_s": "step (s)",
    "update_time_s": "update (s)",
    "start_time_s": "start (s)",
    "start_flops": "start (FLOPs)",
}
# Whole numbers that name something, so they get no thousands separators.
NAMES = frozenset({"rank", "rank_a", "rank_b", "seed"})


def intervals() -> dict[str, tuple[str, str]]:
    """Column of a metric -> the columns of its interval, which people see behind it in brackets."""
    return {value: (low, high) for value, low, high in (m.shown for m in METRICS.values())}


def headings() -> dict[str, str]:
    """Column -> its heading, where that is not its name."""
    return {**{metric.shown[0]: metric.title for metric in METRICS.values()}, **HEADINGS}


def seen(frame: pd.DataFrame) -> list[str]:
    """The columns that people see, in their order."""
    unseen = {end for ends in intervals().values() for end in ends}
    if "best" in frame:
        unseen |= UNSEEN
    return [name for name in frame.columns if name not in unseen]


def number_of_name(name: str, value: float) -> str:
    """A number that names something, such as a rank; rank 0 stands for no rank and is empty."""
    is_no_rank = name.startswith("rank") and not value
    return "" if is_no_rank else f"{value:.0f}"


def has_two_decimals(name: str) -> bool:
    """Whether a column's numbers are shown with two decimals."""
    return name.endswith("_percent") or name.startswith("perplexity")
