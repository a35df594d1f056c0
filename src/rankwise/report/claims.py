"""Published numbers, ours, and a verdict: reproduced, not reproduced, not yet run, or what befell our run."""

from pathlib import Path

import pandas as pd

from rankwise.report import tables

CELL = ("model", "dataset", "method", "rank")


def claims(request: dict, output: Path) -> None:
    """Write the verdict on every claim, from those of the tables beside the output that the study has."""
    frames = {name: tables.read(output.with_name(f"{name}.csv")) for name in request["tables"]}
    tables.write(judge(request["claims"], frames), output.with_suffix(""))


def judge(entries: dict[str, dict], frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a claim; a claim is reproduced if ours is there and differs by its tolerance at most."""
    return pd.DataFrame([_row(name, entry, frames.get(entry["table"])) for name, entry in entries.items()])


def _row(name: str, entry: dict, frame: pd.DataFrame | None) -> dict:
    ours, status = _ours(entry, frame)
    close = ours is not None and abs(ours - entry["published"]) <= entry["tolerance"]
    verdict = status if ours is None else "reproduced" if close else "not reproduced"
    kept = {key: entry[key] for key in ("column", "published")}
    numbers = {**kept, "ours": ours, "tolerance": entry["tolerance"]}
    return {"claim": name, "system": entry["system"], **entry["cell"], **numbers, "verdict": verdict, "source": entry["source"]}


def _ours(entry: dict, frame: pd.DataFrame | None) -> tuple[float | None, str]:
    """Our number, and what its cell came to; a table, row or number that is not there has not been run."""
    missing = None, "not yet run"
    if frame is None or entry["column"] not in frame:
        return missing
    here = frame[(frame[list(CELL)] == [entry["cell"][key] for key in CELL]).all(axis="columns")]
    failed = here.loc[here["status"] != "ok", "status"]
    found = here.loc[here["status"] == "ok", entry["column"]].dropna()
    if len(found):
        return found.iloc[0], "ok"
    return (None, failed.iloc[0].replace("_", " ")) if len(failed) else missing
