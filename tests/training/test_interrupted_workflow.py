"""A workflow that was interrupted, in the ways in which that happens, resumes its training job."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helpers.long_study import LONG_STUDY
from helpers.repository import CLEAN, copy_repository, edit, run_snakemake
from helpers.stored import made
from rankwise.core import compare
from rankwise.core.paths import CHECKPOINTS
from rankwise.study import jobs
from rankwise.study.plan import read_plan

pytestmark = pytest.mark.slow

STUDY = {
    "name": "stopped",
    "question": "Does an interrupted run resume?",
    **LONG_STUDY,
}
CONFIG = "config/stopped.yaml"
RESULT = "results/stopped/runs/tiny/generated_reviews/lora/r4/seed0/train.json"
ARGUMENTS = ["--configfile", CONFIG, "--cores", "2", "--", RESULT]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the inputs, and the result of an uninterrupted run in `whole.json`."""
    root = copy_repository(tmp_path_factory.mktemp("stopped") / "clone")
    (root / CONFIG).write_text(yaml.safe_dump(STUDY))
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 20")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, *ARGUMENTS)
    assert done.returncode == 0, done.stderr[-5000:]
    shutil.copy(made(root, RESULT), root / "whole.json")
    return root


def log_of(root: Path) -> Path:
    """The log of the training job."""
    (planned,) = jobs.cell_jobs(read_plan(root, CONFIG), "train")
    return root / planned.log


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(0.02)


def has_evaluated_twice(root: Path) -> bool:
    """Whether the training job is under way, some evaluations after its beginning."""
    log = log_of(root)
    return log.is_file() and log.read_text().count("\nepoch") >= 2


def planned_training(root: Path) -> list[list[str]]:
    """The reasons that `rankwise plan` gives for each training job that it plans."""
    command = [sys.executable, "-m", "rankwise.cli.main", "plan", "--study", CONFIG, "--json"]
    environment = {**CLEAN, "PYTHONPATH": str(root / "src")}
    answer = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    jobs = json.loads(answer.stdout)["jobs"]
    return [job["why"] for job in jobs if job["job"] == "train"]


def processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def training_processes(root: Path) -> list[int]:
    """The process numbers of training jobs in this clone."""
    numbers = []
    for process in processes():
        with contextlib.suppress(OSError):  # a process may end while it is looked at
            is_here = (process / "cwd").resolve() == root
            if is_here and b"train.py" in (process / "cmdline").read_bytes():
                numbers.append(int(process.name))
    return numbers


# The ways to interrupt a workflow ------------------------------------------------------------------


def kill(snakemake: subprocess.Popen) -> None:
    """Kill Snakemake alone, with a signal that cannot be caught. The user unlocks the folder."""
    root = Path(f"/proc/{snakemake.pid}/cwd").resolve()
    snakemake.kill()
    snakemake.wait()
    assert run_snakemake(root, "--configfile", CONFIG, "--unlock").returncode == 0


def ctrl_c(snakemake: subprocess.Popen) -> None:
    os.killpg(snakemake.pid, signal.SIGINT)


def preempt(snakemake: subprocess.Popen) -> None:
    """As SLURM preempts: SIGTERM to every process of this job, whatever its session."""
    root = Path(f"/proc/{snakemake.pid}/cwd").resolve()
    marker = f"STOPPED={root}".encode()
    for process in processes():
        with contextlib.suppress(OSError):
            if marker in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "warm"), [(ctrl_c, "1"), (preempt, "1"), (preempt, "0"), (kill, "1")]
)
def test_an_interrupted_workflow_resumes(
    stop: Callable[[subprocess.Popen], None], warm: str, clone: Path
) -> None:
    """The job writes a checkpoint, no process is left, and the next workflow run resumes the job."""
    log = log_of(clone)
    log.unlink(missing_ok=True)
    shutil.rmtree(clone / "results/store/runs", ignore_errors=True)
    first = subprocess.Popen(
        [str(Path(sys.executable).with_name("snakemake")), *ARGUMENTS],
        cwd=clone,
        env={**CLEAN, "RANKWISE_WARM": warm, "STOPPED": str(clone)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: has_evaluated_twice(clone))
    stop(first)
    output = first.communicate(timeout=120)[1]
    assert first.returncode != 0, output
    wait_until(lambda: not training_processes(clone), 10)
    assert ": checkpoint written after update " in log.read_text(), output
    assert len(list((clone / CHECKPOINTS).iterdir())) == 1
    assert not list((clone / "results/store/runs").rglob("*.json"))
    assert planned_training(clone) == [["not there yet", "resumes from its checkpoint"]]

    second = run_snakemake(clone, *ARGUMENTS, RANKWISE_WARM=warm)
    assert second.returncode == 0, second.stderr[-5000:]
    assert ": resumed after update " in log.read_text()
    result = json.loads(made(clone, RESULT).read_text())
    expected = json.loads((clone / "whole.json").read_text())
    assert compare.result_difference(result, expected) is None
    assert not list((clone / CHECKPOINTS).iterdir())
