"""Jobs in real processes that meet in one store: each result is computed once, and a killed job leaves nothing in the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.merging import CELL, planned_jobs, small_project
from helpers.repository import CLEAN, ROOT
from rankwise.core import requests, result
from rankwise.core.store import Store
from rankwise.study.jobs import PlannedJob

MEMORY = f"memory {CELL}"
THERE = "in the store already; nothing is computed"


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two projects that share one store."""
    monkeypatch.setenv("RANKWISE_STORE", str(tmp_path / "shared"))
    return small_project(tmp_path / "one"), small_project(tmp_path / "two")


@pytest.fixture
def job(projects: tuple[Path, Path]) -> PlannedJob:
    """A cheap profile, whose request lies where planning would write it."""
    one, two = projects
    job = planned_jobs(one)[MEMORY]
    for root in (one, two):
        requests.write(job.request, root)
    return job


def start(root: Path, job: PlannedJob) -> subprocess.Popen:
    """Start a job as the workflow's shell commands do."""
    command = [sys.executable, "-m", "rankwise.execution.script", "memory"]
    command += ["--request", f"@{requests.file(job.digest)}", "--output", job.path]
    variables = {
        **CLEAN,
        "PYTHONPATH": str(ROOT / "src"),
        "RANKWISE_ENVIRONMENT": "recorded",
        "OMP_NUM_THREADS": "1",
    }
    variables["RANKWISE_STORE"] = os.environ["RANKWISE_STORE"]
    return subprocess.Popen(
        command,
        cwd=root,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen) -> str:
    """What a job printed; it must have ended well."""
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def wait_for(condition: Callable[[], object], seconds: float = 200) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def files(store: Path) -> list[str]:
    """All files and unfinished folders of a store."""
    hidden = store.rglob(".part-*")
    return sorted(
        str(path.relative_to(store))
        for path in [*hidden, *(p for p in store.rglob("*") if p.is_file())]
    )


@pytest.mark.slow
def test_of_two_jobs_at_once_one_computes_and_both_have_the_result(
    projects: tuple[Path, Path], job: PlannedJob, tmp_path: Path
) -> None:
    one, two = projects
    printed = [end(process) for process in [start(root, job) for root in projects]]
    assert sorted(THERE in text for text in printed) == [False, True]
    file = tmp_path / "shared" / job.place
    assert (one / job.path).resolve() == (two / job.path).resolve() == file
    assert result.read(file)["request"] == job.request
    assert files(tmp_path / "shared") == [job.place, "version.json"]


@pytest.mark.slow
def test_a_job_waits_for_the_one_that_holds_its_result(
    projects: tuple[Path, Path], job: PlannedJob, tmp_path: Path
) -> None:
    one, _ = projects
    with Store(one).locked(job.digest):
        process = start(one, job)
        for line in process.stdout:
            if line.startswith("waiting for"):
                break
        assert line.startswith(f"waiting for process {os.getpid()} on "), line
        assert process.poll() is None
        assert not (tmp_path / "shared" / job.place).exists()
    assert THERE not in end(process)
    assert files(tmp_path / "shared") == [job.place, "version.json"]


@pytest.mark.slow
def test_a_killed_job_leaves_a_part_that_the_next_one_removes(
    projects: tuple[Path, Path], job: PlannedJob, tmp_path: Path
) -> None:
    one, two = projects
    store, folder = tmp_path / "shared", (tmp_path / "shared" / job.place).parent
    process = start(one, job)
    wait_for(lambda: list(folder.parent.glob(".part-*")) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = files(store)
    assert [name for name in left if ".part-" in name], left
    assert f".locks/{job.digest}" in left
    assert job.place not in left
    assert THERE not in end(start(two, job))
    assert files(store) == [job.place, "version.json"]
    assert (two / job.path).resolve() == store / job.place
