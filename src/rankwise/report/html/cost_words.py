"""The costs of a curve, in words for the page's first sentences."""

from rankwise.analysis.standings import Standing
from rankwise.report import style

MOST_COSTS = 3  # that a sentence names
MUCH_MORE = 2  # a share from here on is said as a factor
# Costs in the order in which a sentence names them: their names as a share of the reference's.
SHARES = {
    "optimizer_state_bytes": "its optimizer memory",
    "measured_peak_bytes": "its peak memory",
    "peak_bytes": "its peak memory",
    "update_time_s": "its time per update",
    "step_time_s": "its time per update",
    "trainable_parameters": "its trainable parameters",
}


def costs(curve: Standing) -> str:
    """`, with 18 % of its optimizer memory, 60 % of its peak memory and 99 KiB to store`."""
    texts: dict[str, str] = {}  # by name, so that a measured peak stands for a predicted one
    for cost, name in SHARES.items():
        if cost in curve.shares and name not in texts:
            texts[name] = f"{_share(curve.shares[cost])} {name}"
    if not texts.keys() <= {SHARES["trainable_parameters"]}:
        texts.pop(SHARES["trainable_parameters"], None)  # only where nothing better is known
    parts = list(texts.values())[: MOST_COSTS - 1]
    size = adapter(curve)
    if size:
        parts.append(f"{size} to store")
    if not parts:
        return ""
    return f", with {' and '.join([', '.join(parts[:-1]), parts[-1]] if parts[1:] else parts)}"


def adapter(curve: Standing) -> str:
    """The size of what a user stores of the trained model; empty where it was not measured."""
    if "adapter_bytes" not in curve.costs:
        return ""
    return size_text(curve.costs["adapter_bytes"])


def _share(share: float) -> str:
    """`18 % of`, or `9.73 times` where it is much more."""
    percent = 100 * share
    if share >= MUCH_MORE:
        return f"{style.number(share)} times"
    return f"{percent:.0f} % of" if percent >= 10 else f"{percent:.2g} % of"


def size_text(size_bytes: float) -> str:
    """A size in the unit that fits it: `99.0 KiB`."""
    unit_bytes, unit = style.byte_unit(size_bytes)
    if not size_bytes:
        return f"0 {unit}"
    return f"{style.number(size_bytes / unit_bytes)} {unit}"
