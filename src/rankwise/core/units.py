"""What a column measures and in which unit, by its name `{quantity}_{unit}`.

Standard library only.
"""

# Ending of a column's name -> its unit as people see it. `_per_s` stands before `_s`, which it also
# ends with.
UNITS = {
    "_percent": "%", "_fraction": "", "_bytes": "B", "_kib": "KiB", "_mib": "MiB", "_gib": "GiB",
    "_nats": "nats", "_per_s": "/s", "_flops": "FLOPs", "_joules": "J", "_watts": "W",
    "_tokens": "tokens", "_parameters": "parameters", "_s": "s",
}  # fmt: skip
# Endings that belong to the quantity's name too: `trainable_parameters`, not `trainable`.
KEPT = ("_per_s", "_parameters")


def unit(column: str) -> str:
    """The unit of a column: `optimizer_state_mib` -> `MiB`; empty for a count or a ratio."""
    for ending, shown in UNITS.items():
        if column.endswith(ending):
            return shown
    return ""


def quantity(column: str) -> str:
    """What a column measures: `optimizer_state_mib` -> `optimizer_state`."""
    for ending in UNITS:
        if ending not in KEPT and column.endswith(ending):
            return column.removesuffix(ending)
    return column


def of_column(column: str, columns: dict[str, list[str]]) -> str:
    """The table that holds the quantity of a column, in any unit.

    Args:
        column: Such as `optimizer_state_mib`.
        columns: Table -> its columns.

    Returns:
        The first table with a column whose quantity the name begins with; if there is none, the
        first table.
    """
    wanted = f"{quantity(column)}_"
    for table, own_columns in columns.items():
        if any(wanted.startswith(f"{quantity(own)}_") for own in own_columns):
            return table
    return next(iter(columns))
