"""What the published numbers of systems B, D and E and of HiRA still lack. Writes open_claims.md.

    python benchmarks/open_claims.py && python benchmarks/publish.py

Verdicts are made anew from config/claims.yaml and the tables of `shapes/`; nothing is run.
"""

from pathlib import Path

import pandas as pd

from rankwise.analysis import tables
from rankwise.analysis.claim_verdicts import FAILED, HELD, MISSING, judge
from rankwise.core.config import library
from rankwise.study.claims import expand

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benchmarks/open_claims.md"
SYSTEMS = ("B", "D", "E", "HiRA")
ELSEWHERE = "config/published_memory.yaml"  # decides claims that have a page of their own
TABLES = ("memory", "flops", "ledger")  # of shapes/, which decide claims
ORDER = (HELD, FAILED, MISSING)  # of verdicts; others come last
HEADS = ("system", "published", "claims", "verdict", "what decides it, or what it lacks", "study")
RIGHT = ("claims",)  # columns of numbers


def verdicts() -> pd.DataFrame:
    """The verdicts on these systems' claims, less their GPU peaks, from the tables of `shapes/`."""
    frames = {name: tables.read(ROOT / f"benchmarks/shapes/{name}.csv") for name in TABLES}
    judged = judge(expand(library(ROOT)["claims"]), frames)
    is_elsewhere = judged["command"].fillna("").str.endswith(ELSEWHERE)
    return judged[judged["system"].isin(SYSTEMS) & ~is_elsewhere]


def lacking(row: pd.Series) -> str:
    """What would decide a claim, or why it was decided as it was."""
    if row["verdict"] == HELD:
        return "shapes alone"
    if row["verdict"] == MISSING and not row["reason"]:
        return row["needs"] or "its study's profile from shapes, on a CPU"
    return row["reason"]


def page(judged: pd.DataFrame) -> str:
    """One row for all claims of a system with one verdict that lack the same.

    Args:
        judged: Rows of `verdicts`.
    """
    texts = judged.assign(
        lacks=[lacking(row) for _, row in judged.iterrows()],
        study=[command.rpartition(" ")[2] for command in judged["command"].fillna("")],
    )
    grouped = texts.groupby(["system", "verdict", "lacks", "study"], sort=False)
    named = {"title": ("title", _listed), "claims": ("title", "size")}
    counted = grouped.agg(**named).reset_index()
    places = {verdict: place for place, verdict in enumerate(ORDER)}
    counted["place"] = counted["verdict"].map(places).fillna(len(ORDER))
    counted = counted.sort_values(["system", "place"], kind="stable")
    rules = [("---:" if head in RIGHT else "---") for head in HEADS]
    lines = [HEADS, rules]
    for row in counted.itertuples():
        study = f"`{row.study}`" if row.study else ""
        lines.append((row.system, row.title, row.claims, row.verdict, row.lacks, study))
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _listed(titles: pd.Series) -> str:
    """Titles as a list, each once: `Accuracy, times`."""
    first, *others = dict.fromkeys(titles)
    return ", ".join([first, *(f"{title[0].lower()}{title[1:]}" for title in others)])


def main() -> None:
    """Write the file."""
    FILE.write_text(page(verdicts()), encoding="utf-8")


if __name__ == "__main__":
    main()
