"""What a column measures and in which unit, by its name `{quantity}_{unit}`. Standard library only."""

UNITS = {
    "_percent": "%", "_fraction": "", "_bytes": "B", "_kib": "KiB", "_mib": "MiB", "_gib": "GiB", "_nats": "nats",
    "_per_s": "/s", "_flops": "FLOPs", "_joules": "J", "_watts": "W", "_tokens": "tokens", "_parameters": "parameters",
    "_s": "s",
}  # fmt: skip
KEPT = ("_per_s", "_parameters")  # part of the quantity's name, too


def unit(column: str) -> str:
    """`optimizer_state_mib` -> `MiB`; nothing for a count or a ratio."""
    return next((UNITS[end] for end in UNITS if column.endswith(end)), "")


def quantity(column: str) -> str:
    """`optimizer_state_mib` -> `optimizer_state`."""
    return next(
        (column.removesuffix(end) for end in UNITS if end not in KEPT and column.endswith(end)),
        column,
    )


def of_column(column: str, columns: dict[str, list[str]]) -> str:
    """The first of the tables (with their columns) that holds the quantity of `column` in any unit; if none does, the first."""
    wanted = f"{quantity(column)}_"
    found = (
        name
        for name, own in columns.items()
        if any(wanted.startswith(f"{quantity(one)}_") for one in own)
    )
    return next(found, next(iter(columns)))
