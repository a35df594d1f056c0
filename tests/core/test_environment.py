"""A job works in the environment that its lock describes, or not at all; where an own one is let in, the result says so."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from helpers.repository import CLEAN, edit, run_snakemake
from rankwise.core import environment as installed
from rankwise.study import outputs
from rankwise.study.plan import Plan

RESULT = "results/profiles/tiny/generated_reviews/lora/r2/memory.json"
NUMPY = metadata.version("numpy")
DIFFERS = f"numpy {NUMPY}, locked 0{NUMPY}"


@pytest.fixture
def other(clone: Path) -> Path:
    """A clone whose lock has another numpy than is installed."""
    edit(clone / "envs/cpu.lock", f"numpy=={NUMPY}", f"numpy==0{NUMPY}")
    return clone


def request_of(root: Path, demo: dict) -> dict:
    plan = Plan(demo, root, "config/demo.yaml")
    cell = next(cell for cell in plan.cells("memory") if plan.path("memory", cell) == RESULT)
    return plan.request("memory", cell)


def job(
    root: Path, request: dict, script: str = "memory", **environment: str
) -> subprocess.CompletedProcess:
    """The real job of one request, by hand."""
    command = [
        sys.executable,
        f"workflow_scripts/{script}.py",
        "--request",
        json.dumps(request),
        "--output",
        RESULT,
    ]
    own = {**CLEAN, "PYTHONPATH": str(root / "src"), **environment}
    return subprocess.run(command, cwd=root, env=own, capture_output=True, text=True, check=False)


def test_a_job_refuses_another_version_before_it_works(other: Path, demo: dict) -> None:
    done = job(other, request_of(other, demo))
    assert done.returncode != 0
    assert (
        f"envs/cpu.lock: 1 installed otherwise than locked: {DIFFERS}; allowed: the locked versions"
        in done.stderr
    )
    assert not (other / RESULT).parent.exists()


@pytest.mark.slow
def test_an_environment_of_ones_own_is_recorded(other: Path, demo: dict) -> None:
    done = job(other, request_of(other, demo), RANKWISE_ENVIRONMENT="recorded")
    assert done.returncode == 0, done.stderr
    stored = json.loads((other / RESULT).read_text())
    assert stored["environment"]["differs_from_lock"] == {"numpy": DIFFERS.removeprefix("numpy ")}


def test_a_lock_that_changed_after_planning_is_refused(clone: Path, demo: dict) -> None:
    """Of a figure here: every job looks, whatever it makes."""
    request = outputs.figure_request(Plan(demo, clone, "config/demo.yaml"), "memory")
    edit(clone / "envs/report.lock", "matplotlib==", "matplotlib==0")
    done = job(clone, request, "figure", RANKWISE_ENVIRONMENT="recorded")
    assert done.returncode != 0
    assert (
        "envs/report.lock: changed since the workflow was planned; run snakemake again"
        in done.stderr
    )


def test_the_workflow_refuses_before_the_first_job(other: Path) -> None:
    done = run_snakemake(other, RESULT, "--configfile", "config/demo.yaml", "--cores", "1")
    assert done.returncode != 0
    assert DIFFERS in done.stderr
    assert "Execute" not in done.stderr, "a job has started"


@pytest.mark.parametrize(("value", "refusal"), [
    ("yes", "RANKWISE_ENVIRONMENT: got 'yes', allowed: recorded, or not set"),
    ("recorded", None),
])  # fmt: skip
def test_the_variable_lets_any_environment_work(
    value: str, refusal: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("no-such-package==1.0\n")
    monkeypatch.setenv("RANKWISE_ENVIRONMENT", value)
    assert installed.refusal(lock) == refusal
    assert installed.environment(lock)["differs_from_lock"] == {
        "no-such-package": "not installed, locked 1.0"
    }


def test_what_is_missing_differs_and_the_name_of_a_build_does_not(tmp_path: Path) -> None:
    torch = metadata.version("torch").split("+")[0]
    lock = tmp_path / "some.lock"
    lock.write_text(f"torch=={torch}\nno-such-package==1.0 \\\n    --hash=sha256:00\n")
    assert installed.differences(lock) == {"no-such-package": "not installed, locked 1.0"}
