"""The costs of each curve of a study, from all tables with costs that the study has."""

from typing import NamedTuple

import pandas as pd

from rankwise.analysis.scores import KIND, check_devices
from rankwise.analysis.variant_costs import with_variants
from rankwise.core.keys import CURVE, GROUP

KEPT_PARTS = ["weights_bytes", "quantization_bytes", "gradients_bytes", "optimizer_state_bytes"]
# Cost -> the table that has it.
SOURCES = {
    "trainable_parameters": "runs",
    "kept_bytes": "memory",  # the sum of KEPT_PARTS
    "optimizer_state_bytes": "memory",
    "adapter_bytes": "memory",
    "peak_bytes": "ledger",
    "measured_peak_bytes": "ledger",
    "step_flops": "flops",
    "update_time_s": "throughput",
    "step_time_s": "runs",
    "energy_joules": "throughput",
}
# Costs that depend on the device too: numbers from two GPUs or processors cannot be compared.
DEVICE_COSTS = ("update_time_s", "step_time_s", "energy_joules", "measured_peak_bytes")
# Costs that other work on the machine raises. A tainted row has none of them.
DISTURBED = ("update_time_s", "step_time_s", "energy_joules")
# Settings of profiles. Their costs grow with these, so curves must share them.
SETTINGS = ("batch_size", "accumulation_steps", "sequence_length_tokens")

Notes = dict[tuple[str, str], str]  # (model, dataset) -> a sentence


class Costs(NamedTuple):
    """The costs of a study's curves."""

    table: pd.DataFrame  # a row for each curve, a column for each cost
    notes: Notes  # why some costs of a model and dataset are left out


def costs(frames: dict[str, pd.DataFrame]) -> Costs:
    """Costs of the curves in `frames["runs"]`, in their order.

    A cost is empty where a curve was not measured, and has no column where no curve was. Left out,
    with a note, are the costs of a model and dataset that was profiled with several batch sizes or
    lengths, and costs that depend on the device where they were measured on several GPUs or
    processors. Tainted rows count for no cost of DISTURBED.

    Args:
        frames: Tables by name: runs, and those of SOURCES that the study has.

    Raises:
        ValueError: A model and dataset was profiled on several kinds of device; the message names
            them.
    """
    curves = pd.MultiIndex.from_frame(frames["runs"][CURVE].drop_duplicates())
    columns, reasons = {}, {}
    for cost, table in SOURCES.items():
        if table not in frames:
            continue
        check_devices(frames[table], table, KIND)
        rows = _with_kept_bytes(with_variants(frames[table], frames["runs"]))
        if cost not in rows:
            continue
        left_out = _left_out(rows, cost, table)
        for key, reason in left_out.items():
            reasons.setdefault(key, []).append(reason)
        by_curve = _comparable(rows, cost, left_out).groupby(CURVE, sort=False)[cost]
        columns[cost] = by_curve.mean().reindex(curves).astype(float)
    notes = {key: "; ".join(dict.fromkeys(texts)) for key, texts in reasons.items()}
    return Costs(pd.DataFrame(columns, index=curves).dropna(axis="columns", how="all"), notes)


def _comparable(rows: pd.DataFrame, cost: str, left_out: Notes) -> pd.DataFrame:
    """The rows whose cost says something about their curve."""
    keys = zip(rows["model"], rows["dataset"], strict=True)
    kept = rows[[key not in left_out for key in keys]]
    if "status" in kept:
        kept = kept[kept["status"] == "ok"]
    if cost in DISTURBED and "taint" in kept:
        # A row that was timed beside other processes was slowed by them, not by its method.
        kept = kept[kept["taint"].fillna("") == ""]
    return kept


def _with_kept_bytes(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, with the bytes that training keeps from step to step where they have its parts."""
    parts = [name for name in KEPT_PARTS if name in rows]
    if not parts:
        return rows
    return rows.assign(kept_bytes=rows[parts].astype(float).sum(axis=1, skipna=False))


def _left_out(rows: pd.DataFrame, cost: str, table: str) -> Notes:
    """Models and datasets whose rows of a table cannot be compared in a cost, and why."""
    # What is kept does not depend on the batch, so profiles of memory may differ in it.
    left_out = {} if table == "memory" else _unequal_settings(rows, table)
    if cost in DEVICE_COSTS:
        left_out |= _several_devices(rows, cost)
    return left_out


def _unequal_settings(rows: pd.DataFrame, table: str) -> Notes:
    """(model, dataset) -> the setting that its profiles do not share, and its values."""
    notes = {}
    for setting in SETTINGS:
        if setting not in rows:
            continue
        for key, values in rows.groupby(GROUP, sort=False)[setting]:
            if values.nunique() > 1:
                listed = ", ".join(f"{value:.0f}" for value in sorted(values.dropna().unique()))
                notes[key] = (
                    f"{table} of {'/'.join(key)} was profiled with several {setting}: {listed}"
                )
    return notes


def _several_devices(rows: pd.DataFrame, cost: str) -> Notes:
    """(model, dataset) -> the GPUs or processors that measured it, where there are several."""
    measured = rows[rows[cost].notna()].reindex(columns=[*GROUP, "device_name"]).dropna()
    notes = {}
    for key, names in measured.groupby(GROUP, sort=False)["device_name"].unique().items():
        if len(names) > 1:
            devices = " and ".join(sorted(names))
            notes[key] = f"{cost} of {'/'.join(key)} is of several devices, {devices}"
    return notes
