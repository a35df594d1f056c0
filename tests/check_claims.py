"""After `snakemake results/STUDY/claims.csv --configfile config/STUDY.yaml`: every claim that the study decides has a verdict of ours.

python tests/check_claims.py shapes published_memory
"""

import csv
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST = {"shapes": 60, "published_memory": 60}  # decided claims


def main() -> None:
    """Check every study that the command line names."""
    for study in sys.argv[1:]:
        check(study)


def check(study: str) -> None:
    """Exit with the claims that are open; print those that do not hold."""
    with (ROOT / "results" / study / "claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    decided = [
        row
        for row in rows
        if row["command"].endswith(f"config/{study}.yaml")
        and row["reason"].split(" ")[0] != "lacks"
    ]
    undecided = [
        f"{row['claim']}: {row['verdict']}"
        for row in decided
        if row["verdict"] not in ("reproduced", "not reproduced")
    ]
    if undecided or len(decided) < LEAST[study]:
        raise SystemExit(
            f"{study}: {len(decided)} claims, at least {LEAST[study]} wanted; undecided: {undecided}"
        )
    print(
        f"{study}: {len(rows)} claims: {dict(Counter(row['verdict'] for row in rows))}; {len(decided)} decided"
    )
    for row in decided:
        if row["verdict"] == "not reproduced":
            print(
                f"{row['claim']}: published {row['published']}, ours {row['ours']}; {row['reason']}"
            )


if __name__ == "__main__":
    main()
