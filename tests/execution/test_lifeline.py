"""No job outlives the process that planned it, whichever process of the chain is killed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.repository import CLEAN, ROOT
from helpers.worker_clones import is_running, job, make_clone, make_light, wait
from rankwise.core import process_names
from rankwise.execution import lifeline

# Says who it is, and would write a result after a while.
SLEEPER = """
import os, time
from pathlib import Path
folder = Path(os.environ["FOLDER"])
try:
    (folder / "pids.part").write_text(f"{os.getpid()} {os.getppid()}")
    (folder / "pids.part").replace(folder / "pids")
    time.sleep(20)
    (folder / "result").write_text("late")
finally:
    time.sleep(float(os.environ.get("ENDS_IN_S", "0")))
    (folder / "ended").write_text("")
"""
# As Snakemake starts a job: a shell that becomes the job.
PLANNER = """
import os, subprocess, sys
from rankwise.core import process_names
os.environ["RANKWISE_PLANNER"] = process_names.name()
sys.exit(subprocess.call(["bash", "-c", "exec " + " ".join(f"'{word}'" for word in sys.argv[1:])]))
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return make_light(make_clone(tmp_path / "clone"))


@pytest.fixture
def environment(clone: Path, tmp_path: Path) -> dict[str, str]:
    variables = {"PYTHONPATH": str(clone / "src"), "TMPDIR": str(tmp_path)}
    return {**CLEAN, **variables, "FOLDER": str(tmp_path)}


def begin(command: list[str], environment: dict[str, str], tmp_path: Path) -> tuple:
    """Start a planner with a job; the planner, and the numbers of the job and of its parent."""
    planner = subprocess.Popen([sys.executable, "-c", PLANNER, *command], env=environment)
    wait((tmp_path / "pids").is_file)
    pid, parent = map(int, (tmp_path / "pids").read_text().split())
    return planner, pid, parent


@pytest.mark.parametrize(("runner", "warm"), [
    ("script", "1"),
    ("worker_client", "0"),
    ("worker_client", "1"),
])  # fmt: skip
def test_a_job_ends_with_its_killed_planner(
    runner: str, warm: str, clone: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """It removes what it has begun, and writes no result; the worker server ends as well."""
    command = job(clone, SLEEPER, runner)
    planner, pid, parent = begin(command, {**environment, "RANKWISE_WARM": warm}, tmp_path)
    planner.kill()
    planner.wait()
    wait(lambda: not is_running(pid), 5)
    wait(lambda: parent in (1, os.getpid(), planner.pid) or not is_running(parent), 5)
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "result").exists()


def test_a_client_whose_server_was_killed_waits_for_the_job(
    clone: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Snakemake hears of the failure when nothing is written any more."""
    command = job(clone, SLEEPER)
    client = subprocess.Popen(command, env={**environment, "ENDS_IN_S": "1"})
    wait((tmp_path / "pids").is_file)
    pid, server = map(int, (tmp_path / "pids").read_text().split())
    os.kill(server, signal.SIGKILL)
    assert client.wait(timeout=30) == 128 + signal.SIGKILL
    assert not is_running(pid)
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "result").exists()


def test_a_job_ends_when_server_client_and_planner_are_killed_at_once(
    clone: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    planner, pid, server = begin(job(clone, SLEEPER), environment, tmp_path)
    children = Path(f"/proc/{planner.pid}/task/{planner.pid}/children").read_text().split()
    for each in (server, *map(int, children), planner.pid):
        os.kill(each, signal.SIGKILL)
    planner.wait()
    wait(lambda: not is_running(pid), 5)
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("runner", ["script", "worker_client"])
def test_a_job_whose_planner_has_ended_does_not_start(
    runner: str, clone: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """As when Snakemake is killed while the job's interpreter starts."""
    gone = subprocess.Popen(["sleep", "600"])
    name = process_names.name(gone.pid)
    gone.kill()
    gone.wait()
    command = job(clone, SLEEPER, runner)
    done = subprocess.run(command, env={**environment, lifeline.VARIABLE: name}, check=False)
    assert done.returncode == 143
    assert not (tmp_path / "pids").exists()


def test_no_result_is_written_for_a_planner_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(lifeline.VARIABLE, process_names.name())
    lifeline.check_planner()
    monkeypatch.setenv(lifeline.VARIABLE, "elsewhere-1.abc.1.2")  # on another machine: not known
    lifeline.check_planner()
    monkeypatch.setenv(lifeline.VARIABLE, re.sub(r"\d+$", "1", process_names.name()))
    with pytest.raises(SystemExit) as end:
        lifeline.check_planner()
    assert end.value.code == 143
    assert "has ended, so this job writes no result; run snakemake again" in capsys.readouterr().err


def test_every_rule_becomes_its_job() -> None:
    """Without `exec`, the job is a child of the shell, and Snakemake's end does not reach it."""
    shells = 0
    for file in [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]:
        for command in re.findall(r'shell:\s*r?"""\s*(.*?)\s*"""', file.read_text(), re.DOTALL):
            shells += 1
            assert re.match(r"exec python -m rankwise\.execution\.(script|worker_client) ", command)
            assert not re.search(r"[;|&](?!1\s*$)", command.replace("2>&1", "")), command
        assert not re.search(r"^\s+(run|script|notebook|wrapper):", file.read_text(), re.MULTILINE)
    assert shells == 21
