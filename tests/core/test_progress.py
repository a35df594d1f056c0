"""What a job leaves for `rankwise status`, and how often its log says something."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.repository import CLEAN, ROOT
from rankwise.core import progress
from rankwise.core.provenance import digest

REQUEST = {"cell": {"model": "m"}}
# A job that says what it does, and then runs until it is killed.
UNENDING = """
import time
from rankwise.core import progress

with progress.reported({"cell": {"model": "m"}}):
    progress.doing("loading the model")
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list whose only item is the time that the clock shows, in seconds."""
    shown = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: shown[0])
    return shown


def record_after(project: Path, error: BaseException | None) -> dict | None:
    """The record of a job that has ended with `error`."""
    try:
        with progress.reported(REQUEST):
            if error:
                raise error
    except type(error) as raised:
        assert raised is error  # the job itself ends as it would without a record
    return progress.records(project).get(digest(REQUEST))


@pytest.mark.parametrize("error", [None, SystemExit(0), SystemExit()])
def test_a_good_end_leaves_nothing(project: Path, error: BaseException | None) -> None:
    assert record_after(project, error) is None
    assert list((project / "results/.progress").iterdir()) == []


@pytest.mark.parametrize(("error", "state", "reason"), [
    (ValueError("data.csv: got 3, allowed: 2\nand more"), "failed", "ValueError: data.csv: got 3, allowed: 2"),
    (RuntimeError("\n  CUDA error: misaligned address  \n"), "failed", "RuntimeError: CUDA error: misaligned address"),
    (AssertionError(), "failed", "AssertionError"),
    (SystemExit("no such GPU"), "failed", "no such GPU"),
    (SystemExit(143), "stopped", "ended early with exit status 143"),
    (KeyboardInterrupt(), "stopped", "interrupted"),
])  # fmt: skip
def test_a_bad_end_leaves_its_reason(
    project: Path, error: BaseException, state: str, reason: str
) -> None:
    record = record_after(project, error)
    assert (record["state"], record["reason"]) == (state, reason)


def test_a_new_start_replaces_what_a_failure_left(project: Path) -> None:
    record_after(project, ValueError("first"))
    with progress.reported(REQUEST):
        record = progress.records(project)[digest(REQUEST)]
        assert (record["state"], record["pid"]) == ("running", os.getpid())
        assert abs(record["started"] - time.time()) < 60
    assert progress.records(project) == {}


def test_a_job_that_is_killed_is_told_from_one_that_runs(project: Path) -> None:
    with (project / "job.log").open("w") as log:
        job = subprocess.Popen(
            [sys.executable, "-c", UNENDING],
            cwd=project,
            stderr=log,
            env={**CLEAN, "PYTHONPATH": str(ROOT / "src")},
        )
    try:
        end = time.monotonic() + 60
        while "loading" not in str(progress.records(project)):
            assert time.monotonic() < end and job.poll() is None
            time.sleep(0.05)
        record = progress.records(project)[digest(REQUEST)]
        assert (record["state"], record["pid"]) == ("running", job.pid)
        assert (record["doing"], record["log"]) == ("loading the model", "job.log")
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    record = progress.records(project)[digest(REQUEST)]
    assert (record["state"], record["doing"]) == ("killed", "loading the model")
    assert (project / "job.log").read_text() == "loading the model\n"


def test_a_number_that_went_to_another_process_does_not_count_as_the_job(project: Path) -> None:
    """This process has the number, but it started at another time than the job."""
    with progress.reported(REQUEST):
        file = next((project / "results/.progress").glob("*.json"))
        text = file.read_text()
    started = json.loads(text)["process"]
    file.write_text(text.replace(started, started[:-1] + ("0" if started[-1] != "0" else "1")))
    assert progress.records(project)[digest(REQUEST)]["state"] == "killed"
    file.write_text(text.replace(socket.gethostname(), "another-node"))
    assert progress.records(project)[digest(REQUEST)]["state"] == "running"  # nobody here can tell


def test_a_file_that_is_cut_off_is_left_out(project: Path) -> None:
    record_after(project, ValueError("x"))
    file = next((project / "results/.progress").glob("*.json"))
    file.write_text(file.read_text()[:-5])
    assert progress.records(project) == {}


def test_a_disk_that_takes_nothing_stops_no_job(project: Path) -> None:
    (project / "results").write_text("a file where the folder should be")
    with progress.reported(REQUEST):
        pass
    assert progress.records(project) == {}


def test_a_silent_log_gets_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SILENCE_S", 0.2)
    with progress.reported(REQUEST):
        progress.doing("reading a large file")
        time.sleep(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading a large file"
    assert len(lines) >= 3
    assert all(line.startswith("reading a large file: ") for line in lines[1:])
    assert all(line.endswith(" s so far") for line in lines[1:])


def test_a_loop_says_how_far_it_is(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """5 updates in 20 s of this process are 0.25/s, so the last one of 10 takes 4 s."""
    steps = progress.Steps("update", "updates", 10, 4, lambda: {"epoch": 1.5, "loss": 0.123456})
    clock[0] += 20
    steps.made(9)
    assert capsys.readouterr().err == (
        "update 9 of 10, epoch 1.5, loss 0.1235, 0.25 updates/s, 4 s left\n"
    )


def test_a_loop_says_something_every_30_s(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Updates of 7 s: a line at most 30 s after the one before, and none at every update."""
    steps = progress.Steps("update", "updates", 100)
    line_times = [clock[0]]
    for update in range(1, 101):
        clock[0] += 7
        steps.made(update)
        if capsys.readouterr().err:
            line_times.append(clock[0])
    gaps = [later - earlier for earlier, later in itertools.pairwise(line_times)]
    assert max(gaps) <= 30
    assert len(gaps) <= 35  # 700 s


def test_a_running_loop_is_in_the_file(
    project: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """A part of a step leaves the loop's own numbers there. JSON has no nan, so it is left out."""
    with progress.reported(REQUEST):
        progress.doing("training")
        steps = progress.Steps("update", "updates", 10, 4, lambda: {"a": 0.5, "b": float("nan")})
        clock[0] += 8
        steps.made(6)
        numbers = {"update": 6, "updates": 10, "a": 0.5, "updates_per_s": 0.25, "left_s": 16}
        assert progress.records(project)[digest(REQUEST)]["numbers"] == numbers
        with progress.during("evaluating"):
            batches = progress.Steps("batch", "batches", 40, is_part=True)
            clock[0] += 8
            batches.made(4)
            record = progress.records(project)[digest(REQUEST)]
            assert (record["doing"], record["numbers"]) == ("evaluating, batch 4 of 40", numbers)
            clock[0] += 12
            batches.made(10)
        clock[0] += 5
        steps.made(7)
        assert progress.records(project)[digest(REQUEST)]["doing"] == "training"
    assert capsys.readouterr().err.splitlines() == [
        "training",
        "evaluating, batch 10 of 40, 0.5 batches/s, 1 min left",
        "update 7 of 10, a 0.5, b nan, 0.0909 updates/s, 33 s left",  # 3 in 33 s
    ]


@pytest.mark.parametrize(("seconds", "words"), [
    (0.4, "0 s"), (59.6, "1 min"), (94, "1 min 34 s"), (7500, "2 h 5 min"), (3600, "1 h"), (273_600, "3 d 4 h"),
])  # fmt: skip
def test_a_time_in_words(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
