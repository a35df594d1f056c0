"""What `make gpu-check` is made of: processes with a budget, reports, the search for a boundary."""

import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import yaml

from helpers.repository import CLEAN, ROOT

sys.path.append(str(ROOT))  # `benchmarks` is no part of the package

from benchmarks.gpu_check import cases, report, runner
from benchmarks.gpu_check.parts import matrix
from benchmarks.gpu_check.parts.boundary import nearest_boundary
from benchmarks.gpu_check.plan import PARTS, Part
from benchmarks.gpu_check.runner import Ending, Settings

FACTS = {
    "device": "cuda",
    "name": "NVIDIA H200",
    "rehearsal": False,
    "python": "3.12.3",
    "processor": "a processor",
    "cores": 16,
    "versions": {"torch": "2.11.0", "bitsandbytes": "not installed"},
    "commit": "",
    "memory_bytes": 140 * 2**30,
}
PART = Part("matrix", "peaks", 1, 1)


# A part in its process ----------------------------------------------------------------------------


def run_source(tmp_path: Path, source: str, monkeypatch, seconds: float) -> tuple[list, Ending]:
    (tmp_path / "some_part.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_part", raising=False)
    rows: list[dict] = []
    settings = Settings(True, tmp_path / "logs", tmp_path)
    return rows, runner.run_part("some_part", settings, seconds, rows.append)


def test_rows_come_until_the_part_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
def run(check):
    check.row(a=1)
    check.attempt({"case": "good"}, lambda: {"b": 2})
    check.attempt({"case": "bad"}, lambda: {}["missing"])
    print(check.device)
"""
    rows, ending = run_source(tmp_path, source, monkeypatch, 60)
    assert ending == Ending("done")
    assert rows[0] == {"a": 1}
    assert (rows[1]["case"], rows[1]["b"]) == ("good", 2)
    assert rows[2]["reason"] == "KeyError: 'missing' (some_part.py:5)"
    assert (tmp_path / "logs/some_part.log").read_text().endswith("cpu\n")


def test_a_part_over_its_time_is_killed_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
import subprocess, time
def run(check):
    check.row(child=subprocess.Popen(["sleep", "600"]).pid)
    time.sleep(600)
"""
    began = time.monotonic()
    rows, ending = run_source(tmp_path, source, monkeypatch, 1)
    assert ending == Ending("stopped", "its 1 s were over")
    assert time.monotonic() - began < 30
    status = Path(f"/proc/{rows[0]['child']}/stat")
    assert not status.is_file() or ") Z " in status.read_text()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("raise MemoryError('no room')", "MemoryError: no room (some_part.py:2)"),
        ("import os; os.kill(os.getpid(), 9)", "its process ended with status -9"),
    ],
)
def test_a_part_that_fails_says_why(
    line: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, ending = run_source(tmp_path, f"def run(check):\n    {line}\n", monkeypatch, 60)
    assert (rows, ending) == ([], Ending("failed", reason))


# The report ---------------------------------------------------------------------------------------


def test_a_report_is_whole_after_every_row(tmp_path: Path) -> None:
    written = report.Report(tmp_path, FACTS, ["jsonschema"], [PART])
    written.begin(PART, 100)
    for error in (1.0, -3.0, 8.0):
        written.add(PART, {"method": "a|b", "error_percent": error, "all": {"nested": 1}})
    written.add(PART, {"method": "c", "reason": "out of memory"})
    stored = json.loads((tmp_path / "nvidia_h200.json").read_text())
    assert stored["parts"]["matrix"]["status"] == "running"
    assert stored["parts"]["matrix"]["rows"][0]["all"] == {"nested": 1}
    page = (tmp_path / "nvidia_h200.md").read_text()
    assert "not finished" in page
    assert "4 rows, 1 with a reason instead of numbers." in page
    # |1|, |-3|, |8|: the median is 3; one is within 2 %, two are within 5 %.
    assert "median of absolute values 3.00 of 3; 1 within 2 %, 2 within 5 %" in page
    assert "| a\\|b | -3 |" in page
    assert "nested" not in page
    assert "done without: jsonschema" in page

    written.finish(PART, Ending("stopped", "its 100 s were over"), 100, 12)
    written.end(123)
    page = written.markdown.read_text()
    assert "Stopped in 100 s: its 100 s were over." in page
    assert "not finished" not in page


def test_the_parts_have_modules_and_fit_nine_minutes() -> None:
    for part in PARTS:
        assert (ROOT / f"{part.module.replace('.', '/')}.py").is_file()
    assert sum(part.share for part in PARTS) <= 9 * 60


@pytest.mark.slow
def test_every_case_of_the_matrix_can_be_planned_for_a_gpu() -> None:
    for grid in yaml.safe_load(matrix.MATRIX.read_text()):
        profile = {key: value for key, value in grid.items() if key not in matrix.NAMED}
        requests = cases.profiles("ledger", {**profile, "device": "cuda", "gpu": "hopper"})
        # A method without a rank stands once, whatever ranks the grid has.
        assert len(grid["methods"]) <= len(requests) <= len(grid["methods"]) * len(grid["ranks"])
        for request in requests:
            assert (request["device"], request["measured"]) == ("cuda", True)
            assert request.get("precision", "fp32") == grid.get("precision", "fp32")


# The search for the true boundary -----------------------------------------------------------------


@pytest.mark.parametrize("true", [0, 1, 7, 100])
@pytest.mark.parametrize("guess", [0, 1, 6, 7, 8, 60, 100])
def test_the_true_boundary_is_found(true: int, guess: int) -> None:
    tried = []

    def runs(size: int) -> bool:
        assert size not in tried or size == guess
        tried.append(size)
        return size <= true

    assert nearest_boundary(runs, guess, 40) == true
    if guess == true > 0:
        assert tried == [guess, guess + 1]


def test_a_boundary_too_far_away_is_not_guessed() -> None:
    assert nearest_boundary(lambda size: size <= 10_000, 1, 5) is None


# Packages that are missing ------------------------------------------------------------------------

PLAN = """
from benchmarks.gpu_check import standins
print(standins.install())
from benchmarks.gpu_check import cases, training
grid = {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["lora"], "ranks": [4]}
(request,) = cases.profiles("ledger", grid)
print(request["shapes"]["batch_size"])
"""


def site_without(folder: Path, *packages: str) -> Path:
    """A folder with links to all installed packages but some."""
    folder.mkdir()
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        if installed.name.partition("-")[0] not in packages and installed.suffix != ".pth":
            (folder / installed.name).symlink_to(installed)
    return folder


@pytest.mark.slow
def test_planning_and_training_need_neither_jsonschema_nor_datasets(tmp_path: Path) -> None:
    """The default of a profile's batch size is filled in all the same."""
    site = site_without(tmp_path / "site", "jsonschema", "datasets")
    environment = {**CLEAN, "PYTHONPATH": f"{ROOT}/src:{ROOT}:{site}"}
    command = [sys.executable, "-S", "-c", PLAN]  # -S: no other packages
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['jsonschema']", "32"]


def test_a_python_without_torch_gets_one_sentence() -> None:
    environment = {**CLEAN, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    command = [sys.executable, "-S", "-m", "benchmarks.gpu_check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    missing = "got no torch, transformers, peft, accelerate, psutil, yaml; allowed: a Python with"
    assert missing in done.stderr
    assert len(done.stderr.splitlines()) == 1
