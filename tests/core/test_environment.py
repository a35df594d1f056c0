"""A job runs only in the environment that its lock describes.

With RANKWISE_ENVIRONMENT=recorded it runs in any, and the result lists the differences.
"""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from helpers.repository import CLEAN, edit, run_snakemake
from rankwise.core import environment as installed
from rankwise.study.jobs import cell_jobs, document
from rankwise.study.plan import Plan

RESULT = "results/demo/profiles/tiny/generated_reviews/lora/r2/memory.json"
NUMPY = metadata.version("numpy")
DIFFERS = f"numpy {NUMPY}, locked 0{NUMPY}"


@pytest.fixture
def relocked(clone: Path) -> Path:
    """A clone whose lock names another version of numpy than the installed one."""
    edit(clone / "envs/cpu.lock", f"numpy=={NUMPY}", f"numpy==0{NUMPY}")
    return clone


def memory_request(root: Path, demo: dict) -> dict:
    plan = Plan(demo, root, "config/demo.yaml")
    return next(job for job in cell_jobs(plan, "memory") if job.short_path == RESULT).request


def run_job(
    root: Path, request: dict, script: str = "memory", **variables: str
) -> subprocess.CompletedProcess:
    """Run the job of a request without Snakemake, with these environment variables."""
    command = [sys.executable, f"workflow_scripts/{script}.py"]
    command += ["--request", json.dumps(request), "--output", RESULT]
    environment = {**CLEAN, "PYTHONPATH": str(root / "src"), **variables}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_a_job_refuses_another_version_before_it_writes_anything(
    relocked: Path, demo: dict
) -> None:
    done = run_job(relocked, memory_request(relocked, demo))
    message = (
        f"envs/cpu.lock: 1 installed otherwise than locked: {DIFFERS}; allowed: the locked versions"
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert not (relocked / RESULT).parent.exists()


@pytest.mark.slow
def test_differences_from_the_lock_are_recorded_on_request(relocked: Path, demo: dict) -> None:
    request = memory_request(relocked, demo)
    done = run_job(relocked, request, RANKWISE_ENVIRONMENT="recorded")
    assert done.returncode == 0, done.stderr
    stored = json.loads((relocked / RESULT).read_text())
    assert stored["environment"]["differs_from_lock"] == {"numpy": DIFFERS.removeprefix("numpy ")}


def test_a_lock_that_changed_after_planning_is_refused(clone: Path, demo: dict) -> None:
    """Every job checks this. Here it is the job of a figure."""
    request = document(Plan(demo, clone, "config/demo.yaml"), "figures/memory.png").request
    edit(clone / "envs/report.lock", "matplotlib==", "matplotlib==0")
    done = run_job(clone, request, "figure", RANKWISE_ENVIRONMENT="recorded")
    message = "envs/report.lock: changed since the workflow was planned; run snakemake again"
    assert done.returncode != 0
    assert message in done.stderr


def test_the_workflow_refuses_before_the_first_job(relocked: Path) -> None:
    done = run_snakemake(relocked, RESULT, "--configfile", "config/demo.yaml", "--cores", "1")
    assert done.returncode != 0
    assert DIFFERS in done.stderr
    assert "Execute" not in done.stderr, "a job has started"


@pytest.mark.parametrize(("value", "refusal"), [
    ("yes", "RANKWISE_ENVIRONMENT: got 'yes', allowed: recorded, or not set"),
    ("recorded", None),
])  # fmt: skip
def test_the_variable_allows_any_environment(
    value: str, refusal: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("no-such-package==1.0\n")
    monkeypatch.setenv("RANKWISE_ENVIRONMENT", value)
    assert installed.refusal(lock) == refusal
    assert installed.environment(lock)["differs_from_lock"] == {
        "no-such-package": "not installed, locked 1.0"
    }


def test_a_missing_package_differs_and_another_build_of_a_version_does_not(tmp_path: Path) -> None:
    torch = metadata.version("torch").split("+")[0]
    lock = tmp_path / "some.lock"
    lock.write_text(f"torch=={torch}\nno-such-package==1.0 \\\n    --hash=sha256:00\n")
    assert installed.differences(lock) == {"no-such-package": "not installed, locked 1.0"}


def test_installed_versions_are_those_that_python_tells(tmp_path: Path) -> None:
    packages = {
        package.name: metadata.version(package.name) for package in metadata.distributions()
    }
    lock = tmp_path / "some.lock"
    lock.write_text("".join(f"{name}==0.not\n" for name in packages))
    expected = {name: f"{version}, locked 0.not" for name, version in packages.items()}
    assert len(packages) > 50
    assert installed.differences(lock) == expected
