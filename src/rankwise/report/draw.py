"""Draw one figure from the tidy tables that it needs."""

import importlib
from pathlib import Path

import pandas as pd

from rankwise.analysis.scores import DEVICES, KIND, check_devices
from rankwise.analysis.tables import read
from rankwise.report import style

# Table -> the column that a row has only if it was measured on the device that it names; the others are measured throughout.
MEASURED = {"runs": None, "forward": None, "throughput": None, "ledger": "measured_peak_bytes"}
ONE_PANEL = ("predicted",)  # figures with one panel for all models and datasets


def draw(request: dict, output: Path) -> None:
    """Write `request["figure"]` as PNG, SVG and PDF; their metadata carry the digests of the runs in them.

    Raises:
        ValueError: a panel would mix devices, named, or the figure lacks runs, named.
    """
    folder = output.parents[1] / "tables"
    tables = {name: read(folder / f"{name}.csv") for name in request["tables"]}
    _check_devices(request["figure"], tables)
    runs = [
        digest
        for frame in tables.values()
        if "request_digest" in frame
        for digest in frame["request_digest"]
    ]
    figure = importlib.import_module(f"rankwise.report.{request['figure']}").draw(
        tables, dict(request["labels"])
    )
    style.save(figure, output, sorted(set(runs)))


def _check_devices(figure: str, tables: dict[str, pd.DataFrame]) -> None:
    for name, column in MEASURED.items():
        if name in tables:
            rows = tables[name]
            measured = (
                rows[rows[column].notna()]
                if column in rows
                else rows
                if column is None
                else rows.iloc[:0]
            )
            where = (
                {"model": "all models", "dataset": "all datasets"} if figure in ONE_PANEL else {}
            )
            check_devices(
                measured.assign(**where), name, KIND if name == "runs" else DEVICES
            )  # of runs, no times are drawn
