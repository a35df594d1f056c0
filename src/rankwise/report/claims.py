"""Published numbers, ours, and a verdict: reproduced, not reproduced, or not yet run."""

from pathlib import Path

import pandas as pd

from rankwise.report import tables

CELL = ("model", "dataset", "method", "rank")


def claims(request: dict, output: Path) -> None:
    """Write the verdict on every claim, from the tables beside the output."""
    names = {claim["table"] for claim in request["claims"].values()}
    frames = {name: tables.read(output.with_name(f"{name}.csv")) for name in names}
    tables.write(judge(request["claims"], frames), output.with_suffix(""))


def judge(entries: dict[str, dict], frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a claim; a claim is reproduced if ours is there and differs by its tolerance at most."""
    return pd.DataFrame([_row(name, entry, frames[entry["table"]]) for name, entry in entries.items()])


def _row(name: str, entry: dict, frame: pd.DataFrame) -> dict:
    here = (frame[list(CELL)] == [entry["cell"][key] for key in CELL]).all(axis="columns") & (frame["status"] == "ok")
    found = frame.loc[here, entry["column"]].dropna()
    ours = found.iloc[0] if len(found) else None
    close = ours is not None and abs(ours - entry["published"]) <= entry["tolerance"]
    verdict = "not yet run" if ours is None else "reproduced" if close else "not reproduced"
    kept = {key: entry[key] for key in ("column", "published")}
    numbers = {**kept, "ours": ours, "tolerance": entry["tolerance"]}
    return {"claim": name, "system": entry["system"], **entry["cell"], **numbers, "verdict": verdict, "source": entry["source"]}
