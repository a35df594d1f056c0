"""How long planning takes: `snakemake -n`, a rebuild with nothing to do, a grid of 2,700 jobs.

Writes benchmarks/speed.md.

    python benchmarks/speed.py

Wall clock on whatever machine this is, median of three runs; nothing asserts these times.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "results", ".snakemake", "logs")
GRID = {
    "models": ["distilbert"],
    "datasets": ["sst2", "imdb", "sst2_files"],
    "methods": ["full", "head_only", "lora", "lora_qkv", "rsvd"],
    "ranks": [*range(2, 32)],
}
BIG = {
    "name": "big",
    "question": "?",
    "device": "cuda",
    "train": [{**GRID, "seeds": [0, 1, 2, 3, 4, 5, 6]}],
    "profile": [GRID],
}


def seconds(root: Path, *arguments: str, repeats: int = 3) -> tuple[float, str]:
    """Median wall clock of a command, and what it printed the last time."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        done = subprocess.run(
            [SNAKEMAKE, *arguments], cwd=root, capture_output=True, text=True, check=True
        )
        found.append(time.perf_counter() - start)
    return statistics.median(found), done.stdout + done.stderr


def jobs(printed: str) -> int:
    """The total in Snakemake's job table; 0 where nothing is to be done."""
    totals = [line.split()[1] for line in printed.splitlines() if line.startswith("total ")]
    return int(totals[0]) if totals else 0


def main() -> None:
    """Measure in a copy of the tree. The rebuild needs a finished demo, and is left out without."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "clone"
        shutil.copytree(ROOT, root, ignore=LEFT_OUT)
        (root / "config/big.yaml").write_text(yaml.safe_dump(BIG), encoding="utf-8")
        for what, arguments in {
            "`snakemake -n`, the paper study": ("-n",),
            "`snakemake -n`, a large grid": ("-n", "--configfile", "config/big.yaml"),
        }.items():
            median, printed = seconds(root, *arguments)
            rows.append((what, jobs(printed), median))
    if (
        "Nothing to be done"
        in seconds(ROOT, "--configfile", "config/demo.yaml", "-n", repeats=1)[1]
    ):
        median, printed = seconds(ROOT, "--configfile", "config/demo.yaml", "--cores", "1")
        rows.append(("rebuild of the finished demo", jobs(printed), median))
    text = "| command | jobs | median of three (s) |\n| --- | ---: | ---: |\n"
    text += "".join(f"| {what} | {count:,} | {median:.1f} |\n" for what, count, median in rows)
    python = sys.version.split()[0]
    text += f"\n{os.cpu_count()} CPU cores, Python {python}. Wall clock of a shared machine.\n"
    (ROOT / "benchmarks/speed.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
