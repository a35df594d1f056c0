"""What a column measures and in which unit, by its name `{quantity}_{unit}`. Standard library only."""

MIB, GIB = 2**20, 2**30  # bytes

# GPU memory that CUDA takes in every process outside torch's caching allocator: the context and the
# loaded kernels. Source: `measured_context_bytes` of our ledgers on an H100, about 500 MiB. The rest
# is room for cuBLAS's workspace, by default 32 MiB there (aten/src/ATen/cuda/CublasHandlePool.cpp).
CUDA_CONTEXT_BYTES = 600 * MIB

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
