"""How much sooner a study of small training runs ends when they share GPUs.

    python benchmarks/packing.py --cores 16

The same 16 runs go through Snakemake twice: each with a GPU of its own, then with `share: true`.
Where there is a GPU, this writes benchmarks/packing.md. Without a GPU it is a rehearsal that writes
nothing: runs on the CPU, and one simulated GPU of 8 GiB, of which a job takes 1.5 GiB. Any torch
may be installed, since both times are taken with the same one, which is named beside them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankwise.core import environment  # noqa: E402
from rankwise.execution import gpus  # noqa: E402
from rankwise.study.plan import Plan  # noqa: E402

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "results", ".snakemake", "logs")
SIMULATED = [{"uuid": "SIM-0", "name": "simulated", "memory_gib": 8}]
GRID = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora", "rsvd", "head_only"],
    "ranks": [8],
    "seeds": [0, 1, 2, 3],
}
STUDY = {
    "name": "packing",
    "question": "Does sharing help?",
    "schedule": {"updates": 300, "eval_batch_size": 200},
    "train": [GRID],
}


def snakemake(root: Path, targets: list[str], *arguments: str) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    command = [
        SNAKEMAKE,
        *targets,
        "--quiet",
        "rules",
        "progress",
        "--configfile",
        "config/packing.yaml",
        *arguments,
    ]
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    return time.perf_counter() - start


def rehearsed(root: Path) -> dict[str, list[str]]:
    """Options that let trainings on a CPU take a simulated card, whole or in part."""
    (root / "cards.json").write_text(json.dumps(SIMULATED), encoding="utf-8")
    os.environ |= {
        "RANKWISE_CARDS": str(root / "cards.json"),
        "RANKWISE_LEASES": str(root / "leases"),
    }
    share = ["train:gpu=0", "train:gpu_memory_gib=1.5"]
    return {"serial": ["--set-resources", "train:gpu=1"], "packed": ["--set-resources", *share]}


def measure(root: Path, cores: int, real: int) -> dict[str, tuple[float, dict]]:
    """How -> seconds, and the metrics of every run. `real` counts the cards; 0: a rehearsal."""
    options = rehearsed(root) if not real else {"serial": [], "packed": []}
    study = {**STUDY, "device": "cuda" if real else "cpu", "environment": "gpu" if real else "cpu"}
    plan = Plan(study, ROOT)
    runs = [plan.path("train", cell) for cell in plan.cells("train")]
    inputs = [plan.input_path(kind, name) for kind, name in plan.inputs()]
    found = {}
    for how, more in options.items():
        shared = {"share": how == "packed"} if real else {}
        (root / "config/packing.yaml").write_text(
            yaml.safe_dump({**study, **shared}), encoding="utf-8"
        )
        common = ["--cores", str(cores), "--resources", f"gpu={max(real, 1)}"]
        snakemake(root, [*inputs, "predictions"], *common)
        shutil.rmtree(root / "results/store/runs", ignore_errors=True)
        seconds = snakemake(root, runs, *common, *more)
        found[how] = (
            seconds,
            {run: json.loads((root / run).read_text(encoding="utf-8"))["metrics"] for run in runs},
        )
    return found


def main() -> None:
    """Measure in a copy of the tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cores", type=int, default=os.cpu_count(), help="jobs at once (default: all cores)"
    )
    given = parser.parse_args()
    there = gpus.available()
    os.environ.setdefault(environment.OWN, environment.RECORDED)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "clone"
        shutil.copytree(ROOT, root, ignore=LEFT_OUT)
        found = measure(root, given.cores, len(there))
    (serial, alone), (packed, together) = found["serial"], found["packed"]
    text = "| 16 trainings of the tiny encoder | makespan (s) |\n| --- | ---: |\n"
    text += f"| a card for each | {serial:.1f} |\n| sharing cards | {packed:.1f} |\n"
    torch = metadata.version("torch")
    where = ", ".join(map(str, there)) or "a rehearsal on a CPU with a simulated card"
    same = sum(alone[run] == together[run] for run in alone)
    text += (
        f"\nFaster by {serial / packed:.2f}; {same} of {len(alone)} runs have the same metrics to "
    )
    text += f"the last digit. At most {given.cores} at once; {where}; torch {torch}.\n"
    if there:
        (ROOT / "benchmarks/packing.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
