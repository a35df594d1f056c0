"""Predicted peaks of memory beside those that others published. Writes published_memory/*.md.

    snakemake --cores all --configfile config/published_memory.yaml
    python benchmarks/published_memory.py

`--keep NAME` writes the errors to published_memory/NAME.csv instead. The tables show `before.csv`
beside the errors of today: errors, rounded, of the tree before the ledger knew mixed precision,
attention kernels and retained outputs, of the cases that were compared then.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rankwise.report.published_memory import BAND, cases

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks/published_memory"
STUDY = "published_memory"
FIGURE = "figures/published_memory.png"
FITTED = """
The length of the longest batch of peft's runs is not published. That of all its cases was chosen so
that LoRA of rank 32 comes close, so that case is no evidence and is not counted.
"""
METERS = {"peak_allocated_bytes": "allocated", "peak_reserved_bytes": "reserved"}


def predicted(results: Path) -> pd.DataFrame:
    """The published peaks that the study decides, one row a claim.

    Args:
        results: The folder of all results.
    """
    return cases(pd.read_csv(results / STUDY / "claims.csv"))


def undecided(results: Path) -> pd.DataFrame:
    """The published peaks that the prediction does not cover, with the reason."""
    table = pd.read_csv(results / STUDY / "claims.csv")
    is_published = table["claim"].str.startswith("published_memory_")
    is_open = table["verdict"].isin(["not yet run", "not comparable"])
    return table[is_published & is_open].dropna(subset=["reason"])


def with_before(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `before_percent`: the error of the kept earlier prediction; nan where there is none."""
    file = FOLDER / "before.csv"
    before = pd.read_csv(file).set_index("claim")["error_percent"] if file.is_file() else {}
    return rows.assign(before_percent=rows["claim"].map(before).astype(float))


# The pages ----------------------------------------------------------------------------------------


def by_source(rows: pd.DataFrame) -> str:
    """A Markdown table: one row a source, and one for all cases."""
    head = [
        "measured by",
        "cases",
        "median error (%)",
        f"within {BAND} %",
        "largest (%)",
        "median before (%)",
        f"within {BAND} % before",
        "median of those now (%)",
        f"of those within {BAND} % now",
    ]
    groups = [*rows.groupby("system", sort=False), ("all", rows)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(_source(*group) for group in groups)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _source(name: str, rows: pd.DataFrame) -> list[str]:
    error, before = rows["error_percent"], rows["before_percent"].dropna()
    same_now = error[before.index].abs()
    largest = error.loc[error.abs().idxmax()]
    return [
        name,
        str(len(rows)),
        f"{error.abs().median():.1f}",
        str((error.abs() <= BAND).sum()),
        f"{largest:+.1f}",
        f"{before.abs().median():.1f}" if len(before) else "",
        f"{(before.abs() <= BAND).sum()} of {len(before)}" if len(before) else "",
        f"{same_now.median():.1f}" if len(before) else "",
        str((same_now <= BAND).sum()) if len(before) else "",
    ]


def by_case(rows: pd.DataFrame) -> str:
    """A Markdown table of all cases; those outside of the band have their claim's reason."""
    lines = [
        [
            "case",
            "model",
            "meter",
            "published (GB)",
            "predicted (GB)",
            "error (%)",
            "before (%)",
            "why",
        ],
        ["---", "---", "---", *["---:"] * 4, "---"],
        *_cases(rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cases(rows: pd.DataFrame) -> Iterator[list[str]]:
    for row in rows.itertuples():
        is_outside = abs(row.error_percent) > BAND
        note = row.note.split("; tolerance:")[0] if isinstance(row.note, str) else ""
        is_reason = is_outside and not note.startswith("tolerance:")
        yield [
            row.claim.removeprefix("published_memory_"),
            row.model,
            METERS[row.meter],
            f"{row.published_bytes / 10**9:.2f}",
            f"{row.predicted_bytes / 10**9:.2f}",
            f"{row.error_percent:+.1f}",
            "" if pd.isna(row.before_percent) else f"{row.before_percent:+.1f}",
            note if is_reason else "",
        ]


def outside(rows: pd.DataFrame) -> str:
    """A Markdown table of the published peaks that are not predicted, by reason."""
    lines = [["measured by", "cases", "why they are not predicted"], ["---", "---:", "---"]]
    for (system, reason), group in rows.groupby(["system", "reason"], sort=False):
        lines.append([system, str(len(group)), reason])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Write the pages, or keep the predictions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--keep", metavar="NAME", help="write NAME.csv and no page")
    given = parser.parse_args()
    rows = predicted(given.results)
    if given.keep:
        kept = rows[["claim", "error_percent"]].round(1)
        kept.to_csv(FOLDER / f"{given.keep}.csv", index=False)
        return
    shutil.copyfile(given.results / STUDY / "claims.csv", FOLDER / "claims.csv")
    rows = with_before(rows)
    (FOLDER / "table.md").write_text(by_source(rows) + FITTED, encoding="utf-8")
    pages = [by_case(rows), "\nNot predicted:\n\n", outside(undecided(given.results))]
    (FOLDER / "cases.md").write_text("".join(pages), encoding="utf-8")
    shutil.copyfile(given.results / STUDY / FIGURE, FOLDER / "published_memory.png")
    print(by_source(rows))


if __name__ == "__main__":
    main()
