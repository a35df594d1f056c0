"""After `snakemake --configfile config/methods_smoke.yaml`: a row for every entry, ok, or unsupported with a reason."""

import csv
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Exit with what is missing or failed."""
    entries = set(yaml.safe_load((ROOT / "config/methods.yaml").read_text()))
    with (ROOT / "results/tables/runs.csv").open() as file:
        rows = {row["method"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}
    missing = sorted(entries - set(rows))
    bad = {name: row for name, row in rows.items() if row[0] != "ok" and not (row[0] == "unsupported" and row[1])}
    if missing or bad:
        raise SystemExit(f"no row: {missing}; failed: {bad}")
    unsupported = {name: reason for name, (status, reason) in rows.items() if status != "ok"}
    print(f"{len(rows)} entries, {len(rows) - len(unsupported)} trained; unsupported: {unsupported}")


if __name__ == "__main__":
    main()
