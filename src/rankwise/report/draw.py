"""Draw one figure from the tidy tables that it needs."""

import importlib
from pathlib import Path

import pandas as pd

from rankwise.analysis.scores import DEVICES, KIND, check_devices
from rankwise.analysis.tables import read
from rankwise.report import partial_note, style

# Tables whose rows were measured on a device. Where a column is given, only the rows that have a
# value in it were measured; the other rows were predicted.
MEASURED = {"runs": None, "forward": None, "throughput": None, "ledger": "measured_peak_bytes"}
ONE_PANEL = ("predicted",)  # figures with one panel for all models and datasets


def draw(request: dict, output: Path) -> None:
    """Write `request["figure"]` as PNG, SVG and PDF.

    The metadata of the files name the digests of the runs that it shows. A note above the panels
    names results that are absent.

    Raises:
        ValueError: A panel would mix devices, or the figure lacks runs. The message names them.
    """
    figure_name = request["figure"]
    tables = {name: read(_table_path(output, name)) for name in request["tables"]}
    _check_devices(figure_name, tables)
    module = importlib.import_module(f"rankwise.report.{figure_name}")
    named = {"reference": request["reference"]} if "reference" in request else {}
    figure = module.draw(tables, dict(request["labels"]), **named)
    partial_note.add(figure, request)
    style.save(figure, output, style.run_digests(tables.values()))


def _table_path(output: Path, name: str) -> Path:
    """The path of a table; the claims lie beside the folder of the others."""
    study = output.parents[1]
    return study / "claims.csv" if name == "claims" else study / "tables" / f"{name}.csv"


def _check_devices(figure_name: str, tables: dict[str, pd.DataFrame]) -> None:
    for name, column in MEASURED.items():
        if name not in tables:
            continue
        measured = _measured_rows(tables[name], column)
        if figure_name in ONE_PANEL:
            measured = measured.assign(model="all models", dataset="all datasets")
        # Figures of runs draw scores and no times, so runs on two types of GPU may be mixed.
        check_devices(measured, name, KIND if name == "runs" else DEVICES)


def _measured_rows(rows: pd.DataFrame, column: str | None) -> pd.DataFrame:
    if column is None:
        return rows
    return rows[rows[column].notna()] if column in rows else rows.iloc[:0]
