"""After `snakemake results/shapes/claims.csv --configfile config/shapes.yaml`: every claim that shapes decide has a verdict of ours."""

import csv
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST = 60


def main() -> None:
    """Exit with the claims that are open; print those that do not hold."""
    with (ROOT / "results/shapes/claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    shapes = [
        row
        for row in rows
        if row["command"].endswith("config/shapes.yaml") and row["reason"].split(" ")[0] != "lacks"
    ]
    undecided = [
        f"{row['claim']}: {row['verdict']}"
        for row in shapes
        if row["verdict"] not in ("reproduced", "not reproduced")
    ]
    if undecided or len(shapes) < LEAST:
        raise SystemExit(
            f"{len(shapes)} claims on shapes, at least {LEAST} wanted; undecided: {undecided}"
        )
    print(
        f"{len(rows)} claims: {dict(Counter(row['verdict'] for row in rows))}; {len(shapes)} decided from shapes"
    )
    for row in shapes:
        if row["verdict"] == "not reproduced":
            print(
                f"{row['claim']}: published {row['published']}, ours {row['ours']}; {row['reason']}"
            )


if __name__ == "__main__":
    main()
