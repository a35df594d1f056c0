"""Copy a study's tables and figures into benchmarks/NAME, and fill the pages' marked blocks.

    python benchmarks/publish.py laptop

A block of README.md or docs/ stands between `<!-- begin FILE -->` and `<!-- end FILE -->`. Nothing
in it is typed by hand.
"""

import argparse
import json
import re
import shutil
from collections import Counter
from pathlib import Path

from rankwise.analysis.tidy import PER_JOB
from rankwise.core import csv_cells
from rankwise.core.config import library, without
from rankwise.study.claims import expand

ROOT = Path(__file__).resolve().parents[1]
TABLES = (
    "summary.md",
    "summary.csv",
    "estimates.csv",
    "comparisons.csv",
    "comparisons.md",
    "search.csv",
    "runs.csv",
    "memory.csv",
    "flops.csv",
    "ledger.csv",
    "throughput.csv",
    "forward.csv",
    "fits.csv",
)

CLAIMS = ("claims.csv", "claims.md", "claims.png")
# Claims that another study decides; published_memory.py writes the table.
DECIDED_ELSEWHERE = ROOT / "benchmarks/published_memory/claims.csv"
OPEN = "not yet run"
VERDICTS = ("reproduced", "not reproduced", "not comparable", OPEN)
VERDICTS_FILE = ROOT / "benchmarks/shapes/verdicts.md"
WORST = 5  # rows that the README shows
PEAKS = ("peak_bytes", "tracked_peak_bytes", "measured_peak_bytes", "workspace_bytes")


def publish(name: str, results: Path) -> None:
    """Copy what there is, and the environments that its results were made in."""
    folder = ROOT / "benchmarks" / name
    folder.mkdir(exist_ok=True)
    tables = [results / "tables" / table for table in TABLES]
    claims = [results / claim for claim in CLAIMS] if decided(results / "claims.csv") else []
    for file in (*tables, *claims, *sorted((results / "figures").glob("*.png"))):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    if (folder / "ledger.csv").is_file():
        table = closing(results)
        (folder / "ledger.md").write_text(table, encoding="utf-8")
        (folder / "worst.md").write_text(
            "".join(table.splitlines(keepends=True)[: 2 + WORST]), encoding="utf-8"
        )
    measured = [
        *sorted(results.glob("runs/**/train.json")),
        *sorted(results.glob("profiles/**/*.json")),
    ]
    found = [
        without(json.loads(file.read_text(encoding="utf-8"))["environment"], PER_JOB)
        for file in measured
    ]
    distinct = [env for number, env in enumerate(found) if env not in found[:number]]
    (folder / "environment.json").write_text(
        json.dumps(distinct, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def decided(claims: Path) -> bool:
    """Whether a study decides more published numbers than it leaves open."""
    counts = Counter(row["verdict"] for row in _rows(claims)) if claims.is_file() else Counter()
    return counts["reproduced"] + counts["not reproduced"] > counts[OPEN]


def _rows(table: Path) -> list[dict[str, str]]:
    return csv_cells.read(table)[1]


def verdicts(claims: Path) -> str:
    """A Markdown table of how many published numbers of each system got which verdict.

    The claims are those of config/claims.yaml. One that the study of published memory decides has
    its verdict, another that of the table.

    Args:
        claims: The table of the study that decides the others.
    """
    verdict_by_claim: dict[str, str] = {}
    for row in (*_rows(claims), *_rows(DECIDED_ELSEWHERE)):
        if row["verdict"] != OPEN:
            verdict_by_claim[row["claim"]] = row["verdict"]
    counts = Counter()
    for name, claim in expand(library(ROOT)["claims"]).items():
        counts[claim["system"], verdict_by_claim.get(name, OPEN)] += 1
    systems = sorted({system for system, _ in counts}, key=lambda name: (len(name) > 1, name))
    rows = [[name, *(counts[name, verdict] for verdict in VERDICTS)] for name in systems]
    total = ["all", *(sum(row[1:][place] for row in rows) for place in range(len(VERDICTS)))]
    lines = [["system", *VERDICTS], ["---", *["---:"] * len(VERDICTS)], *rows, total]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def closing(results: Path) -> str:
    """A Markdown table of predicted, tracked and measured peaks, the largest residual first."""
    rows = [
        row for row in _rows(results / "tables" / "ledger.csv") if row.get("measured_peak_bytes")
    ]
    rows.sort(key=lambda row: -abs(float(row["residual_fraction"])))
    lines = [
        [
            "model",
            "method",
            "rank",
            "predicted (B)",
            "tracked (B)",
            "measured (B)",
            "of it workspace (B)",
            "residual (%)",
        ],
        ["---", "---", *["---:"] * 6],
    ]
    for row in rows:
        sizes = [f"{float(row[kind]):,.0f}" if row.get(kind) else "" for kind in PEAKS]
        rank = "" if row["rank"] == "0" else row["rank"]
        lines.append(
            [
                row["model"],
                row["method"],
                rank,
                *sizes,
                f"{100 * float(row['residual_fraction']):.3f}",
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fill(text: str) -> str:
    """A page with every marked block replaced by the file that it names."""
    block = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
    return block.sub(
        lambda found: f"{found[1]}\n{(ROOT / found[2]).read_text(encoding='utf-8')}\n{found[3]}",
        text,
    )


def main() -> None:
    """Publish the study named on the command line, if any, then fill the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", help="name of the folder below benchmarks/")
    parser.add_argument("--results", type=Path, help="the study's folder (default: results/STUDY)")
    given = parser.parse_args()
    if given.study:
        publish(given.study, given.results or ROOT / "results" / given.study)
    VERDICTS_FILE.write_text(verdicts(VERDICTS_FILE.with_name("claims.csv")), encoding="utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
