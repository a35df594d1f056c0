"""Small clones with results by hand, for the tests of what comes together from several clones."""

import hashlib
import subprocess
import sys
from pathlib import Path

from helpers.repository import CLEAN, ROOT
from rankwise.audit.merge_clones import collect
from rankwise.core import result
from rankwise.study.jobs import PlannedJob, result_jobs
from rankwise.study.plan import read_plan

STUDY = "tests/studies/collect_search.yaml"
CELL = "tiny/generated_reviews/lora/r2"
TRAIN, MEMORY, TIMES = (
    f"results/runs/{CELL}/seed0/train.json",
    f"results/profiles/{CELL}/memory.json",
    f"results/profiles/{CELL}/throughput.json",
)
MODEL, DATASET = (
    "results/inputs/models/tiny/model.json",
    "results/inputs/datasets/generated_reviews/dataset.json",
)


def small_clone(root: Path) -> Path:
    """What a plan reads of a clone; and its results."""
    (root / "results").mkdir(parents=True)
    for name in ("config", "envs", "workflow_scripts", "tests"):
        (root / name).symlink_to(ROOT / name)
    return root


def planned_jobs(folder: Path) -> dict[str, PlannedJob]:
    root = small_clone(folder / "clone")
    return {job.path: job for job in result_jobs(read_plan(root, STUDY))}


def three_places(folder: Path) -> tuple[Path, Path, Path]:
    """This clone and two others, without results."""
    here, one, other = (small_clone(folder / name) for name in ("here", "one", "other"))
    return here, one, other


def plant(
    root: Path,
    planned: dict[str, PlannedJob],
    *paths: str,
    processor: str = "Processor 1",
    **found: object,
) -> None:
    """Results that answer the plan, each with the files beside it that it names; all of them where no path is named."""
    for path in paths or planned:
        file, job = root / path, planned[path]
        beside = (
            {"model.safetensors": b"weights"}
            if "model.json" in path
            else {"train.arrow": b"rows"}
            if "dataset.json" in path
            else {}
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        for name, content in beside.items():
            file.with_name(name).write_bytes(content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in beside.items()}
        parts = (
            {"splits": {"train": {"rows": 1, "sha256": sums["train.arrow"]}}}
            if "train.arrow" in sums
            else {"files": sums}
            if sums
            else {}
        )
        default = {
            "metrics": {"accuracy_fraction": 0.5},
            "cost": {"train_time_s": 1.0},
            "device": "cpu",
            **parts,
        }
        result.write(
            file, job.request, {**default, **found}, {"processor": processor, "job_time_s": 2.0}
        )


def change(file: Path, **parts: object) -> None:
    result.write_json(file, {**result.read(file), **parts})


def bring(here: Path, *folders: Path, **options: object) -> dict:
    return collect([str(folder) for folder in folders], here, STUDY, **options)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.glob("results/**/*"))
        if file.is_file()
    }


def consistent(root: Path, planned: dict[str, PlannedJob]) -> bool:
    """Whether nothing that lies there is older than what its job reads: by this alone Snakemake would make it anew."""
    times = {path: (root / path).stat().st_mtime_ns for path in planned if (root / path).is_file()}
    assert times
    return all(times[path] >= times.get(read, 0) for path in times for read in planned[path].inputs)


def rankwise(root: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rankwise.cli.main", *map(str, arguments)]
    environment = {
        **CLEAN,
        "PYTHONPATH": str(root / "src" if (root / "src").is_dir() else ROOT / "src"),
    }
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
