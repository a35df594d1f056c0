"""Units: what a column's name `{quantity}_{unit}` says, and the sizes of memory. Standard library
only.
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
