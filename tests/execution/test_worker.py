"""Jobs in a warm server end as they would in a process of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.repository import CLEAN, ROOT

REQUEST = json.dumps({"code": {}})


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A server of each test's own."""
    return {**CLEAN, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)}


def job(folder: Path, text: str) -> list[str]:
    script = folder / "script.py"
    script.write_text(text)
    return [
        sys.executable,
        "-m",
        "rankwise.execution.worker_client",
        str(script),
        "--request",
        REQUEST,
    ]


def run(
    command: list[str], environment: dict[str, str], **options: object
) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, **options
    )


SEEN = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["ASKED"], "torch" in sys.modules, sys.stdin.read())
print("to stderr", file=sys.stderr)
sys.exit(7)
"""


@pytest.mark.parametrize("warm", ["1", "0"])
def test_a_job_sees_what_its_caller_has(
    warm: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """Arguments, folder, environment and streams; and its exit status comes back. Only a warm one has torch already."""
    command = job(tmp_path, SEEN)
    done = run(
        command, {**environment, "ASKED": "yes", "RANKWISE_WARM": warm}, cwd=tmp_path, input="typed"
    )
    assert done.returncode == 7
    assert done.stdout == f"['--request', '{REQUEST}'] {tmp_path} yes {warm == '1'} typed\n"
    assert done.stderr == "to stderr\n"


def test_an_exception_is_a_failure_with_its_trace(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(job(tmp_path, "raise ValueError('what went wrong')"), environment)
    assert done.returncode == 1
    assert "ValueError: what went wrong" in done.stderr
    assert run(job(tmp_path, "import sys; sys.exit('a sentence')"), environment).returncode == 1


def test_each_job_reads_the_sources_anew(environment: dict[str, str], tmp_path: Path) -> None:
    """The server holds nothing of this project: a source that has changed is the one that runs."""
    package = tmp_path / "sources" / "rankwise"
    package.mkdir(parents=True)
    for name in ("__init__", "warm", "forks"):
        (package / f"{name}.py").write_text((ROOT / f"src/rankwise/{name}.py").read_text())
    found = []
    for value in (1, 22):
        (package / "edited.py").write_text(f"value = {value}\n")
        command = job(
            tmp_path, "from rankwise.edited import value; import os; print(value, os.getppid())"
        )
        found.append(
            run(command, {**environment, "PYTHONPATH": str(package.parent)}).stdout.split()
        )
    assert [value for value, _ in found] == ["1", "22"]
    assert found[0][1] == found[1][1] != str(os.getpid())  # by one server


def test_a_caller_that_is_killed_takes_its_job_along(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = job(
        tmp_path,
        f"import os, time; open('{tmp_path}/pid', 'w').write(f'{{os.getpid()}} '); time.sleep(600)",
    )
    caller = subprocess.Popen(command, env=environment)
    wait(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().endswith(" "))
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    caller.kill()
    caller.wait()
    wait(lambda: not Path(f"/proc/{pid}").exists())


def test_a_job_that_is_killed_is_told_as_a_shell_does(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(
        job(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"), environment
    )
    assert done.returncode == 128 + signal.SIGTERM


def test_without_a_server_the_script_runs_here(environment: dict[str, str], tmp_path: Path) -> None:
    """Where its folder cannot be had, for another user's file stands there."""
    (tmp_path / f"rankwise-{os.getuid()}").write_text("no folder")
    done = run(job(tmp_path, "print('ran')"), environment)
    assert (done.returncode, done.stdout) == (0, "ran\n")


def wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
