"""Jobs of the worker server end as they would in a process of their own."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from helpers.repository import CLEAN
from helpers.worker_clones import REQUEST, job, make_clone, make_light, wait


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return make_clone(tmp_path / "clone")


@pytest.fixture
def light(clone: Path) -> Path:
    return make_light(clone)


@pytest.fixture
def environment(clone: Path, tmp_path: Path) -> dict[str, str]:
    """The sources of the clone, and a folder for the server's socket: each test has its own."""
    return {**CLEAN, "PYTHONPATH": str(clone / "src"), "TMPDIR": str(tmp_path)}


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


@pytest.mark.parametrize(("warm", "where"), [
    ("1", " in a process that later jobs share"),
    ("0", ""),
])  # fmt: skip
def test_a_job_has_the_clients_surroundings(
    warm: str, where: str, clone: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Arguments, folder, environment, streams and exit status; only the server has torch.

    The log says what takes seconds before a job starts.
    """
    command = job(clone, SEEN)
    done = run(
        command, {**environment, "ASKED": "yes", "RANKWISE_WARM": warm}, cwd=tmp_path, input="typed"
    )
    assert done.returncode == 7
    assert done.stdout == f"['--request', '{REQUEST}'] {tmp_path} yes {warm == '1'} typed\n"
    assert done.stderr == f"rankwise: importing libraries{where}\nto stderr\n"


def test_a_document_has_a_server_of_its_own(clone: Path, environment: dict[str, str]) -> None:
    """It holds what draws, and not torch, which takes longer to import."""
    text = "import sys; print('matplotlib.figure' in sys.modules, 'torch' in sys.modules)"
    done = run(job(clone, text, "worker_client", "--documents"), environment)
    assert done.stdout == "True False\n", done.stderr


def test_an_exception_is_a_failure_with_its_trace(light: Path, environment: dict[str, str]) -> None:
    done = run(job(light, "raise ValueError('what went wrong')"), environment)
    assert done.returncode == 1
    assert "ValueError: what went wrong" in done.stderr
    done = run(job(light, "import sys; sys.exit('a sentence')"), environment)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "a sentence")


def test_each_job_reads_the_sources_anew(light: Path, environment: dict[str, str]) -> None:
    """The server holds nothing of this project, so a source that has changed is the one that runs."""
    command = job(light, "from rankwise.edited import value; import os; print(value, os.getppid())")
    values, servers = [], []
    for value in (1, 22):
        (light / "src/rankwise/edited.py").write_text(f"value = {value}\n")
        printed, server = run(command, environment).stdout.split()
        values.append(printed)
        servers.append(server)
    assert values == ["1", "22"]
    assert servers[0] == servers[1] != str(os.getpid())


def test_a_client_that_is_killed_takes_its_job_along(
    light: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    write_pid = f"import os, time; open('{tmp_path}/pid', 'w').write(f'{{os.getpid()}} ')"
    client = subprocess.Popen(job(light, f"{write_pid}; time.sleep(600)"), env=environment)
    wait(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().endswith(" "))
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    client.kill()
    client.wait()
    wait(lambda: not Path(f"/proc/{pid}").exists())


def test_a_job_that_is_killed_ends_as_in_a_shell(light: Path, environment: dict[str, str]) -> None:
    kill_itself = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    assert run(job(light, kill_itself), environment).returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (
            "SIGKILL",
            r"ended by SIGKILL; peak of its resident memory: 0\.\d\d GiB; .* OOM killer .*",
        ),
        ("SIGTERM", "ended by SIGTERM"),
    ],
)
def test_the_log_of_a_job_that_a_signal_killed_says_so(
    number: str, sentence: str, light: Path, environment: dict[str, str]
) -> None:
    done = run(job(light, f"import os, signal; os.kill(os.getpid(), signal.{number})"), environment)
    assert re.fullmatch(sentence, done.stderr.splitlines()[-1])


def test_the_log_of_a_job_whose_server_was_killed_says_so(
    light: Path, environment: dict[str, str]
) -> None:
    done = run(job(light, "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"), environment)
    assert done.returncode == 128 + signal.SIGKILL
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ended by SIGKILL; ")
    assert line.endswith("; it ended the process that this job was a fork of")


def test_without_a_server_the_script_runs_here(
    light: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """As where its folder cannot be made, because another file has the name."""
    folder = tmp_path / f"rankwise-{os.getuid()}"
    folder.write_text("no folder")
    done = run(job(light, "print('ran')"), environment)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    reason = f"{folder} is no folder; remove it or set TMPDIR"
    assert done.stderr.startswith(f"rankwise: this job runs without a worker process: {reason}\n")
