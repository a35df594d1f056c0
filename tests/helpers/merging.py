"""Small projects with results by hand, for the tests of the store and of what comes together from several clones."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.repository import CLEAN, ROOT
from helpers.stored import store_result
from rankwise.core import result, store
from rankwise.study.jobs import PlannedJob, result_jobs
from rankwise.study.plan import read_plan

STUDY = "config/mine.yaml"
TEXT = """\
name: mine
question: What reads what?
device: cpu
schedule: {updates: 2, batch_size: 8, eval_batch_size: 64}
train:
  - models: [tiny]
    datasets: [generated_reviews]
    methods: [full, lora]
    ranks: [2]
    seeds: [0]
    search: {learning_rate_factors: [1, 3], seeds: [1]}
profile:
  - {models: [tiny], datasets: [generated_reviews], methods: [lora], ranks: [2], measurements: [memory, throughput]}
"""
CELL = "tiny/generated_reviews/lora/r2"
DATA = {"dataset": ("train.arrow", b"rows"), "model": ("model.safetensors", b"weights")}


def small_project(root: Path) -> Path:
    """What planning reads: entries, locks and scripts of the repository, and one study."""
    (root / "config").mkdir(parents=True)
    for name in ("methods", "models", "datasets", "claims", "evaluations"):
        shutil.copy(ROOT / f"config/{name}.yaml", root / "config")
    for name in ("envs", "workflow_scripts", "pyproject.toml", "CITATION.cff", "LICENSE"):
        (root / name).symlink_to(ROOT / name)
    (root / STUDY).write_text(TEXT)
    return root


def planned_jobs(root: Path, study: str = STUDY) -> dict[str, PlannedJob]:
    """Kind and name of each result that a study plans -> its job."""
    return {f"{job.kind} {job.name}": job for job in result_jobs(read_plan(root, study))}


def content(job: PlannedJob, **found: object) -> dict:
    """What a job might have measured, with the data files' SHA-256 if it prepares an input."""
    made = {"metrics": {"accuracy_fraction": 0.5}, "cost": {"train_time_s": 1.0}, "device": "cpu"}
    if job.kind in DATA:
        name, data = DATA[job.kind]
        sha256 = hashlib.sha256(data).hexdigest()
        made |= (
            {"files": {name: sha256}}
            if job.kind == "model"
            else {"splits": {"train": {"rows": 1, "sha256": sha256}}}
        )
    return {**made, **found}


def keep(
    root: Path, *jobs: PlannedJob, processor: str = "Processor 1", **found: object
) -> list[Path]:
    """Results in the store of a project, as jobs leave them; their files."""

    def make(job: PlannedJob, folder: Path) -> dict:
        if job.kind in DATA:
            name, data = DATA[job.kind]
            (folder / name).write_bytes(data)
        return content(job, **found)

    environment = {"processor": processor, "job_time_s": 2.0}
    return [
        store_result(root, job.request, lambda folder, job=job: make(job, folder), environment)
        for job in jobs
    ]


def plant_older(root: Path, *jobs: PlannedJob, **found: object) -> list[Path]:
    """Results in the older layout: one file a cell, in results/ itself, without a digest in the path."""
    files = []
    for job in jobs:
        place = Path(job.place)
        file = root / "results" / place.parents[1] / place.name
        result.write(file, job.request, content(job, **found), {"processor": "Processor 1"})
        if job.kind in DATA:
            name, data = DATA[job.kind]
            file.with_name(name).write_bytes(data)
        files.append(file)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and hidden file below a folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def own_store(root: Path) -> Path:
    return root / store.DEFAULT


def rankwise(
    root: Path, *arguments: object, answer: str | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """The command, in a project.

    Args:
        root: The project.
        arguments: Behind `rankwise`.
        answer: What is typed; the input is closed if None.
        environment: More variables.
    """
    command = [sys.executable, "-m", "rankwise.cli.main", *map(str, arguments)]
    source = root / "src" if (root / "src").is_dir() else ROOT / "src"
    variables = {**CLEAN, "PYTHONPATH": str(source), **environment}
    return subprocess.run(
        command, cwd=root, env=variables, input=answer or "", capture_output=True, text=True
    )


def answer_of(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
