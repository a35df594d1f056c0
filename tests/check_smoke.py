"""After `snakemake --configfile config/methods_smoke.yaml`: a row for every entry, ok, or unsupported with a reason.

And the memory of each one's training step: predicted against the tracked peak and against the allocator's, less what oneDNN's
kernels take for themselves, within 2 %.
"""

import csv
from pathlib import Path

import yaml

LIMIT = 0.02
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Exit with what is missing or failed."""
    for name in ("runs", "ledger"):
        check(name)
    rows = [row for row in read("ledger") if row["status"] == "ok"]
    peaks = {
        row["method"]: [float(row[f"{kind}peak_bytes"]) for kind in ("", "tracked_", "measured_")]
        for row in rows
    }
    for row in rows:
        peaks[row["method"]][2] -= float(row.get("workspace_bytes") or 0)
    off = {
        name: max(abs(real - peak[0]) / real for real in peak[1:]) for name, peak in peaks.items()
    }
    open_ledgers = {name: share for name, share in off.items() if share > LIMIT}
    if open_ledgers:
        raise SystemExit(f"ledgers that do not close to {LIMIT:.0%}: {open_ledgers}")
    print(
        f"{len(off)} ledgers close; furthest off: {max(off, key=off.get)}, {max(off.values()):.2%}"
    )


def read(table: str) -> list[dict]:
    """The rows of a tidy table."""
    with (ROOT / f"results/tables/{table}.csv").open() as file:
        return list(csv.DictReader(file))


def check(table: str) -> None:
    """Whether every entry has a row."""
    entries = set(yaml.safe_load((ROOT / "config/methods.yaml").read_text()))
    rows = {row["method"]: (row["status"], row["reason"]) for row in read(table)}
    missing = sorted(entries - set(rows))
    bad = {
        name: row
        for name, row in rows.items()
        if row[0] != "ok" and not (row[0] == "unsupported" and row[1])
    }
    if missing or bad:
        raise SystemExit(f"{table}: no row: {missing}; failed: {bad}")
    unsupported = {name: reason for name, (status, reason) in rows.items() if status != "ok"}
    print(
        f"{table}: {len(rows)} entries, {len(rows) - len(unsupported)} ok; unsupported: {unsupported}"
    )


if __name__ == "__main__":
    main()
