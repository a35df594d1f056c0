"""What `deterministic: true` costs, and how far results of two kinds of CPU differ.

    python benchmarks/determinism.py results/demo/runs/tiny/*/*/r*/seed0/*/train.json
    python benchmarks/publish.py

Each training is made again from its own result: with deterministic kernels and without, in turns,
and with torch's kernels for other instruction sets. Only ratios of times mean anything, because
other programs run beside. Writes determinism.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rankwise.core.compare import (
    EXAMPLES,
    MOST_TELLING,
    NOT_REPRODUCIBLE,
    SMALLEST,
    differences,
    tolerance_of,
)

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benchmarks/determinism.md"
CAPABILITIES = ("default", "avx2", "avx512")  # values of ATEN_CPU_CAPABILITY on x86
LEFT_OUT = (*NOT_REPRODUCIBLE, "weights")  # of kept weights only the digest is in a result
TURNS = 3


def train(request: dict, folder: Path, capability: str = "") -> dict:
    """Make a training again, in a process of its own."""
    asked, output = folder / "request.json", folder / "train.json"
    asked.write_text(json.dumps({"request": request}), encoding="utf-8")
    variables = {**os.environ, "OMP_NUM_THREADS": str(request["cpu_threads"])}
    if capability:
        variables["ATEN_CPU_CAPABILITY"] = capability
    script = [sys.executable, ROOT / "workflow_scripts/train.py"]
    subprocess.run(
        [*script, "--request", f"@{asked}", "--output", output],
        env=variables,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(output.read_text(encoding="utf-8"))


def cost_row(request: dict, folder: Path) -> tuple:
    """Median times with deterministic kernels and without, and whether the results are the same."""
    asked = {True: {**request, "deterministic": True}, False: dict(request)}
    del asked[False]["deterministic"]
    results = {mode: [] for mode in asked}
    for _turn in range(TURNS):
        for mode, wanted in asked.items():
            results[mode].append(train(wanted, folder))
    seconds = {
        mode: statistics.median(result["cost"]["train_time_s"] for result in of_mode)
        for mode, of_mode in results.items()
    }
    first = numbers(results[True][0])
    is_same = all(numbers(result) == first for of_mode in results.values() for result in of_mode)
    ratio = f"{seconds[True] / seconds[False]:.2f}"
    times = f"{seconds[True]:.2f}", f"{seconds[False]:.2f}"
    return (*name(request), *times, ratio, "yes" if is_same else "no")


def cpu_rows(request: dict, folder: Path) -> list[tuple]:
    """The largest relative differences between each two instruction sets.

    A processor without an instruction set gets the kernels of a lower one, and no row.
    """
    results = {}
    for capability in CAPABILITIES:
        result = train(request, folder, capability)
        results.setdefault(result["environment"]["cpu_capability"], numbers(result))
    first, *others = results
    rows = []
    for other in others:
        found = [
            (*relative(one.first, one.second), one.key)
            for one in differences(results[first], results[other])
        ]
        for part in ("means", EXAMPLES):
            some = [
                one for one in found if (one[2].partition(".")[0] == EXAMPLES) == (part != "means")
            ]
            largest, _, key = max(some, default=(0.0, 0.0, "none differs"))
            allowed = tolerance_of(EXAMPLES if part == EXAMPLES else part)
            shown = ".".join(word for word in key.split(".") if not word.isdigit())
            rows.append(
                (*name(request), f"{first}, {other}", part, f"{largest:.1e}", shown, f"{allowed:g}")
            )
    return rows


def relative(first: object, second: object) -> tuple[float, float]:
    """The relative and the absolute difference of two numbers; infinite for anything else."""
    if not (isinstance(first, float) and isinstance(second, float)):
        return float("inf"), float("inf")
    absolute = abs(first - second)
    return (absolute / max(abs(first), abs(second)) if absolute > SMALLEST else 0.0), absolute


def numbers(result: dict) -> dict:
    """What two correct jobs share, as `rankwise collect` compares it."""
    kept = {key: value for key, value in result.items() if key not in LEFT_OUT}
    kept["history"] = [
        {key: value for key, value in row.items() if not key.endswith("_s")}
        for row in result["history"]
    ]
    return {key: kept[key] for key in sorted(kept, key=lambda key: key not in MOST_TELLING)}


def name(request: dict) -> tuple[str, int]:
    """The method of a request, and its rank."""
    return request["cell"]["method"], request["cell"]["rank"]


def table(heads: tuple[str, ...], rows: list[tuple]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="results of deterministic trainings")
    costs, cpus = [], []
    for file in parser.parse_args().results:
        request = json.loads(file.read_text(encoding="utf-8"))["request"]
        with tempfile.TemporaryDirectory() as folder:
            costs.append(cost_row(request, Path(folder)))
            cpus += cpu_rows(request, Path(folder))
    heads = ("method", "rank", "deterministic (s)", "otherwise (s)", "ratio", "same numbers")
    text = table(heads, costs)
    heads = ("method", "rank", "kernels", "of", "largest relative difference", "in", "allowed")
    FILE.write_text(f"{text}\n{table(heads, cpus)}", encoding="utf-8")


if __name__ == "__main__":
    main()
