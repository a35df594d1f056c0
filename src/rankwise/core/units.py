"""Units: what a column's name `{quantity}_{unit}` says, sizes of memory, lengths of time in words.
Standard library only.
"""

KIB, MIB, GIB = 2**10, 2**20, 2**30  # bytes

# GPU memory that CUDA takes in every process outside torch's caching allocator: the context and the
# loaded kernels. An estimate for current data-center GPUs, not a measurement of ours: a ledger that
# is measured on a GPU reports `measured_context_bytes`.
CUDA_CONTEXT_BYTES = 600 * MIB

# Ending of a column's name -> its unit in tables and figures. `_per_s` must come before `_s`, which
# it also ends with.
UNITS = {
    "_percent": "%", "_fraction": "", "_bytes": "B", "_kib": "KiB", "_mib": "MiB", "_gib": "GiB",
    "_nats": "nats", "_per_s": "/s", "_flops": "FLOPs", "_joules": "J", "_watts": "W",
    "_tokens": "tokens", "_parameters": "parameters", "_s": "s",
}  # fmt: skip
PART_OF_QUANTITY = (
    "_per_s",
    "_parameters",
)  # endings without which the quantity would be another one


def unit(column: str) -> str:
    """`optimizer_state_mib` -> `MiB`; an empty text for a count or a ratio."""
    for ending, name in UNITS.items():
        if column.endswith(ending):
            return name
    return ""


def quantity(column: str) -> str:
    """`optimizer_state_mib` -> `optimizer_state`."""
    for ending in UNITS:
        if ending not in PART_OF_QUANTITY and column.endswith(ending):
            return column.removesuffix(ending)
    return column


def of_column(column: str, columns: dict[str, list[str]]) -> str:
    """The first table that has the quantity of `column` in any unit; if none has, the first table.

    Args:
        column: Name of a column in a table that was made from others.
        columns: Table -> its columns, of these others.
    """
    wanted = f"{quantity(column)}_"
    for table, names in columns.items():
        if any(wanted.startswith(f"{quantity(name)}_") for name in names):
            return table
    return next(iter(columns))


# Lengths of time ----------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A length of time in words: `40 seconds`, `13 minutes`, `2 hours 5 minutes`, `3 days`.

    Args:
        seconds: Finite and not negative.

    Returns:
        Days with hours, hours with minutes, or one unit alone; rounded to the smallest that is
        shown.
    """
    if seconds < 0.5:
        return "less than a second"
    if round(seconds) < 60:
        return _times(max(round(seconds), 1), "second")  # Python rounds 0.5 to 0
    minutes = round(seconds / 60)
    if minutes < 60:
        return _times(minutes, "minute")
    hours, minutes_left = divmod(minutes, 60)
    if hours < 24:
        return _joined(_times(hours, "hour"), _times(minutes_left, "minute"))
    days, hours_left = divmod(round(seconds / 3600), 24)
    return _joined(_times(days, "day"), _times(hours_left, "hour"))


def _times(count: int, unit_name: str) -> str:
    """`1 hour`, `2 hours`; an empty text for none."""
    if not count:
        return ""
    return f"1 {unit_name}" if count == 1 else f"{count} {unit_name}s"


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
