"""What each curve of a study costs, from whichever tables the study has."""

from typing import NamedTuple

import pandas as pd

from rankwise.analysis.scores import CURVE, GROUP, KIND, check_devices

CELL = [*GROUP, *CURVE]
PARTS = ["weights_bytes", "quantization_bytes", "gradients_bytes", "optimizer_state_bytes"]
# Cost -> the table that has it.
SOURCES = {
    "trainable_parameters": "runs",
    "kept_bytes": "memory",  # the sum of PARTS
    "optimizer_state_bytes": "memory",
    "peak_bytes": "ledger",
    "measured_peak_bytes": "ledger",
    "step_flops": "flops",
    "update_time_s": "throughput",
    "step_time_s": "runs",
    "energy_joules": "throughput",
}
TIMED = (
    "update_time_s",
    "step_time_s",
    "energy_joules",
    "measured_peak_bytes",
)  # costs that are the device's too
SETTINGS = (
    "batch_size",
    "accumulation_steps",
    "sequence_length_tokens",
)  # of profiles; their costs grow with them


class Costs(NamedTuple):
    """A row a curve and a column a cost; (model, dataset) -> why some are left out."""

    table: pd.DataFrame
    notes: dict[tuple[str, str], str]


def costs(frames: dict[str, pd.DataFrame]) -> Costs:
    """Costs of the curves in `frames["runs"]`, in their order; empty where not measured, no column where nowhere measured.

    Those of a model and dataset that were profiled with several batches or lengths are left out, and times from several cards
    or processors.

    Raises:
        ValueError: a model and dataset were profiled on several kinds of device; names them.
    """
    runs, notes, columns = frames["runs"], {}, {}
    curves = pd.MultiIndex.from_frame(runs[CELL].drop_duplicates())
    for cost, table in SOURCES.items():
        if table not in frames:
            continue
        check_devices(frames[table], table, KIND)
        rows = _with_sum(frames[table])
        if cost in rows:
            unequal = {} if table == "memory" else _unequal(rows, table)
            unequal |= _devices(rows, cost) if cost in TIMED else {}
            kept = rows[
                [key not in unequal for key in zip(rows["model"], rows["dataset"], strict=True)]
            ]
            sound = kept[kept["status"] == "ok"] if "status" in kept else kept
            if (
                cost == "step_time_s" and "taint" in sound
            ):  # with others on its card, a run's time says nothing of its method
                sound = sound[sound["taint"].fillna("") == ""]
            columns[cost] = (
                sound.groupby(CELL, sort=False)[cost].mean().reindex(curves).astype(float)
            )
            for key, why in unequal.items():
                notes.setdefault(key, []).append(why)
    said = {key: "; ".join(dict.fromkeys(why)) for key, why in notes.items()}
    return Costs(pd.DataFrame(columns, index=curves).dropna(axis="columns", how="all"), said)


def _with_sum(rows: pd.DataFrame) -> pd.DataFrame:
    parts = [name for name in PARTS if name in rows]
    return (
        rows.assign(kept_bytes=rows[parts].astype(float).sum(axis=1, skipna=False))
        if parts
        else rows
    )


def _unequal(rows: pd.DataFrame, table: str) -> dict[tuple[str, str], str]:
    """(model, dataset) -> the setting that its profiles do not share, and its values, in a sentence."""
    found = {}
    for setting in (name for name in SETTINGS if name in rows):
        for key, some in rows.groupby(GROUP, sort=False)[setting]:
            if some.nunique() > 1:
                values = ", ".join(f"{value:.0f}" for value in sorted(some.dropna().unique()))
                found[key] = (
                    f"{table} of {'/'.join(key)} was profiled with several {setting}: {values}"
                )
    return found


def _devices(rows: pd.DataFrame, cost: str) -> dict[tuple[str, str], str]:
    """(model, dataset) -> the cards or processors that measured it, in a sentence, where there are several."""
    measured = rows[rows[cost].notna()].reindex(columns=[*GROUP, "device_name"])
    names = measured.dropna().groupby(GROUP, sort=False)["device_name"].unique()
    several = {key: sorted(some) for key, some in names.items() if len(some) > 1}
    return {
        key: f"{cost} of {'/'.join(key)} is of several devices, {' and '.join(some)}"
        for key, some in several.items()
    }
