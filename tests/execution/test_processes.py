"""The processes of a job end together: with a result, with a failure, or when they are told to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.worker_clones import is_running
from rankwise.execution import processes
from rankwise.execution.processes import together


def rank() -> int:
    return int(os.environ["RANK"])


def test_the_first_process_answers() -> None:
    def call() -> dict:
        return {"rank": rank(), "count": int(os.environ["WORLD_SIZE"]), "score": 0.1 + 0.2}

    assert together(call, 2, 1, on_gpu=False) == {"rank": 0, "count": 2, "score": 0.1 + 0.2}


@pytest.mark.parametrize("how", ["killed", "raised"])
def test_a_process_that_dies_ends_the_job(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """The other one would wait for ever. It is ended, and the job says which one was the first."""
    monkeypatch.setattr(processes, "GRACE_S", 0.2)

    def call() -> dict:
        (tmp_path / str(rank())).write_text(str(os.getpid()))
        if rank() == 0:
            time.sleep(600)
        while not (tmp_path / "0").is_file():
            time.sleep(0.01)
        if how == "raised":
            raise ArithmeticError("a reason of its own")
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(SystemExit) as end:
        together(call, 2, 1, on_gpu=False)
    sentence = str(end.value.code)
    if how == "killed":
        assert sentence.startswith("process 1 of 2 ended with SIGKILL; the system sends it when ")
    else:
        assert sentence.startswith("process 1 of 2 ended with exit status 1; the others cannot ")
    printed = capfd.readouterr().err
    assert ("a reason of its own" in printed) == (how == "raised")
    for number in (0, 1):
        pid = int((tmp_path / str(number)).read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_failed_run_of_one_process_is_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in the second process: the first one waits for it in vain."""
    monkeypatch.setattr(processes, "GRACE_S", 0.2)

    def call() -> dict:
        if rank() == 0:
            time.sleep(600)
        return {"status": "out_of_memory", "reason": "too little"}

    answer = together(call, 2, 1, on_gpu=False)
    assert answer == {"status": "out_of_memory", "reason": "too little"}


STOPPED_JOB = """
import os, signal, sys, time
from pathlib import Path
from rankwise.execution.processes import together

def call():
    def stop(*_):
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    Path(sys.argv[1], os.environ["RANK"]).write_text(str(os.getpid()))
    time.sleep(600)

together(call, 2, 1, on_gpu=False)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_job(number: signal.Signals, tmp_path: Path) -> None:
    """A stop signal goes on to both; if the job's process is killed, the system tells them."""
    job = subprocess.Popen([sys.executable, "-c", STOPPED_JOB, str(tmp_path)])
    until = time.monotonic() + 60
    while len([p for p in tmp_path.iterdir() if p.read_text()]) < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    pids = [int((tmp_path / str(index)).read_text()) for index in (0, 1)]
    job.send_signal(number)
    status = job.wait(timeout=60)
    assert status == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_fewer_gpus_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    with pytest.raises(SystemExit, match="got 1 GPUs, allowed: at least 2"):
        together(dict, 2, 1, on_gpu=True)
