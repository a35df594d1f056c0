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

from faults.processes import role
from helpers import kept_runs
from helpers.disks import small_disk
from helpers.long_study import LONG_STUDY
from helpers.repository import CLEAN, copy_repository, edit, run_snakemake
from helpers.stored import made
from rankwise.core import compare, provenance, sealed
from rankwise.core.paths import CHECKPOINTS
from rankwise.study.plan import read_plan

pytestmark = pytest.mark.slow

STUDY = {
    "name": "stopped",
    "question": "Does an interrupted run resume?",
    "disk_gib": 0,  # one test fills a disk
    **LONG_STUDY,
}
# The same run in two processes, shorter.
SCHEDULE = {**LONG_STUDY["schedule"], "updates": 300, "evaluate_every_updates": 25, "processes": 2}
TWO = {**STUDY, "name": "two", "schedule": SCHEDULE, "keep": "adapter"}


def config_of(study: dict) -> str:
    return f"config/{study['name']}.yaml"


def result_of(study: dict) -> str:
    return f"results/{study['name']}/runs/tiny/generated_reviews/lora/r4/seed0/train.json"


def arguments(study: dict) -> list[str]:
    return ["--configfile", config_of(study), "--cores", "2", "--", result_of(study)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with smaller inputs."""
    root = copy_repository(tmp_path_factory.mktemp("stopped") / "clone")
    for study in (STUDY, TWO):
        (root / config_of(study)).write_text(yaml.safe_dump(study))
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 20")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    # A run that has trained for 2 s writes a checkpoint after its last update.
    edit(root / "src/rankwise/training/checkpoint.py", "SAVE_EVERY_S = 600", "SAVE_EVERY_S = 20")
    return root


@pytest.fixture(scope="module")
def uninterrupted(clone: Path) -> dict:
    """The result of a run that nothing interrupted."""
    return run_whole(clone, STUDY)


def run_whole(root: Path, study: dict, **environment: str) -> dict:
    """Run a study to its end; the result of its training."""
    # A worker server that this run starts also serves the run that is stopped.
    done = run_snakemake(root, *arguments(study), STOPPED=str(root), **environment)
    assert done.returncode == 0, done.stderr[-5000:]
    return sealed.read(made(root, result_of(study)))


def log_of(root: Path, study: dict) -> Path:
    """The log of the training job, which has run before.

    A plan in this process would name it by the digest of the repository's sources, and the clone
    has others.
    """
    (log,) = (root / "logs" / study["name"] / "train").rglob("*.log")
    return log


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(0.02)


def has_evaluated_twice(log: Path) -> bool:
    """Whether the training job of this log is under way, some evaluations after its beginning."""
    return log.is_file() and log.read_text().count("\nepoch") >= 2


def planned_training(root: Path, study: dict) -> list[list[str]]:
    """The reasons that `rankwise plan` gives for each training job that it plans."""
    file = config_of(study)
    command = [sys.executable, "-m", "rankwise.cli.main", "plan", "--study", file, "--json"]
    environment = {**CLEAN, "PYTHONPATH": str(root / "src")}
    answer = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    planned = json.loads(answer.stdout)["jobs"]
    return [job["why"] for job in planned if job["job"] == "train"]


def processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def job_processes(root: Path) -> list[int]:
    """The numbers of all processes that work in this clone, but Snakemake's.

    Forks of the worker server and the processes of one training are among them.
    """
    numbers = []
    for process in processes():
        with contextlib.suppress(OSError):  # a process may end while it is looked at
            words = (process / "cmdline").read_bytes().split(b"\0")
            is_here = (process / "cwd").resolve() == root
            if is_here and role(words, is_here) != "snakemake":
                numbers.append(int(process.name))
    return numbers


# The ways to interrupt a workflow ------------------------------------------------------------------


def kill(snakemake: subprocess.Popen) -> None:
    """Kill Snakemake alone, with a signal that cannot be caught. The user unlocks the folder."""
    root = Path(f"/proc/{snakemake.pid}/cwd").resolve()
    second = run_snakemake(root, *arguments(STUDY))
    assert f"locked by another run of Snakemake: process {snakemake.pid}, since " in second.stderr
    snakemake.kill()
    snakemake.wait()
    third = run_snakemake(root, *arguments(STUDY))
    assert f"killed: process {snakemake.pid}, since " in third.stderr
    assert f"`snakemake --unlock --configfile {config_of(STUDY)}`" in third.stderr
    assert "Traceback" not in second.stderr + third.stderr
    assert second.returncode == third.returncode == 1
    assert run_snakemake(root, "--configfile", config_of(STUDY), "--unlock").returncode == 0


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


def interrupt(root: Path, study: dict, stop: Callable[[subprocess.Popen], None], warm: str) -> None:
    """Start a study anew and stop it: its job leaves a checkpoint, no result and no process."""
    log = log_of(root, study)
    log.unlink(missing_ok=True)
    shutil.rmtree(root / "results/store/runs", ignore_errors=True)
    first = subprocess.Popen(
        [str(Path(sys.executable).with_name("snakemake")), *arguments(study)],
        cwd=root,
        env={**CLEAN, "RANKWISE_WARM": warm, "STOPPED": str(root)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: has_evaluated_twice(log))
    assert job_processes(root)
    stop(first)
    output = first.communicate(timeout=120)[1]
    assert first.returncode != 0, output
    wait_until(lambda: not job_processes(root), 10)
    assert ": checkpoint written after update " in log.read_text(), output
    assert len(list((root / CHECKPOINTS).iterdir())) == 1
    assert not list((root / "results/store/runs").rglob("*.json"))
    assert planned_training(root, study) == [["not there yet", "resumes from its checkpoint"]]


def resume(root: Path, study: dict, warm: str) -> dict:
    """Run an interrupted study to its end; the result of its training."""
    result = run_whole(root, study, RANKWISE_WARM=warm)
    assert ": resumed after update " in log_of(root, study).read_text()
    assert not list((root / CHECKPOINTS).iterdir())
    return result


@pytest.mark.parametrize("stop", [ctrl_c, preempt, kill])
def test_an_interrupted_workflow_resumes(
    stop: Callable[[subprocess.Popen], None], clone: Path, uninterrupted: dict
) -> None:
    """The job writes a checkpoint, no process is left, and the next workflow run resumes the job."""
    interrupt(clone, STUDY, stop, warm="1")
    result = resume(clone, STUDY, warm="1")
    assert compare.result_difference(result, uninterrupted) is None


def test_a_full_disk_at_the_result_loses_no_training(
    clone: Path, uninterrupted: dict, tmp_path: Path
) -> None:
    """The checkpoint stays, one sentence says so, and with room the run goes on from its end."""
    shutil.rmtree(clone / "results/store/runs")
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "version.json").write_text('{"version": 1}')
        (disk / ".locks").mkdir()
        (disk / "other").write_bytes(b"0" * (shutil.disk_usage(disk).free - 16_384))
        failed = run_snakemake(clone, *arguments(STUDY), RANKWISE_STORE=f"{disk}:results/store")
        assert failed.returncode == 1
        assert not list(disk.rglob("*.json")) or list(disk.rglob("*.json")) == [
            disk / "version.json"
        ]
        assert not list(disk.rglob(".part-*"))
    log = log_of(clone, STUDY).read_text()
    (kept,) = (clone / CHECKPOINTS).iterdir()
    assert log.splitlines()[-1] == (
        f"the training is kept in {CHECKPOINTS / kept.name}; {disk}: No space left on device; "
        "nothing was stored. Allowed: a folder that can be written, with room; RANKWISE_STORE "
        "names another one"
    )
    assert "Traceback" not in log
    result = resume(clone, STUDY, warm="1")
    assert (
        f": resumed after update {STUDY['schedule']['updates']}" in log_of(clone, STUDY).read_text()
    )
    assert compare.result_difference(result, uninterrupted) is None


def test_two_processes_resume_and_keep_one_adapter(clone: Path, tmp_path: Path) -> None:
    """SIGTERM through Snakemake, in jobs that no worker process forks.

    The resumed run keeps the same bytes as one that nothing interrupted, and plain peft opens them.
    """
    expected = run_whole(clone, TWO, RANKWISE_WARM="0")
    assert expected["weights"]["kind"] == "adapter"
    interrupt(clone, TWO, preempt, warm="0")
    result = resume(clone, TWO, warm="0")
    assert result["weights"] == expected["weights"]  # the SHA-256 of each file among them
    assert compare.result_difference(result, expected) is None
    folder = made(clone, result_of(TWO)).parent
    for name, sha256 in result["weights"]["files"].items():
        assert provenance.file_sha256(folder / name) == sha256
    plan = read_plan(clone, config_of(TWO))
    (cell,) = plan.cells("train")
    rows = tmp_path / "rows.json"
    kept_runs.write_inputs(plan, clone, cell, rows)
    case = {
        "folder": str(folder / "adapter"),
        "base": str(kept_runs.base_folder(plan, clone, "tiny")),
        "classes": 2,
        "rows": json.loads(rows.read_text()),
    }
    (losses,) = kept_runs.reloaded([case])
    expected_losses = result["examples"]["loss_nats"]
    assert losses == pytest.approx(expected_losses, **kept_runs.TOLERANCE)
