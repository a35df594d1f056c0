"""`rankwise status` in another process, beside a real Snakemake and after it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from helpers.long_study import LONG_STUDY
from helpers.repository import CLEAN, copy_repository, edit

pytestmark = pytest.mark.slow

CONFIG = "config/watched.yaml"
STUDY = {
    "name": "watched",
    "question": "Who sees it?",
    **LONG_STUDY,
}
NAME = "tiny/generated_reviews/lora/r4/seed0"


def status(root: Path) -> dict:
    command = [sys.executable, "-m", "rankwise.cli.main", "status", "--study", CONFIG, "--json"]
    environment = {**CLEAN, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@contextlib.contextmanager
def snakemake(root: Path):
    """Snakemake at work on the study."""
    program = str(Path(sys.executable).with_name("snakemake"))
    target = next(each for each in planned_results(root) if NAME in each)
    process = subprocess.Popen(
        [program, "--configfile", CONFIG, "--cores", "1", "--", target],
        cwd=root,
        env=CLEAN,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def planned_results(root: Path) -> list[str]:
    """The paths of the study's training runs."""
    code = (
        "from pathlib import Path; from rankwise.study.plan import read_plan\n"
        f"plan = read_plan(Path.cwd(), {CONFIG!r})\n"
        "print(*[plan.path('train', cell) for cell in plan.cells('train')], sep='\\n')"
    )
    environment = {**CLEAN, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def training(root: Path) -> dict | None:
    """The training run that is under way and has said how far it is."""
    running = [job for job in status(root)["running"] if job["name"] == NAME]
    return next((job for job in running if job["numbers"]), None)


def test_a_run_is_seen_killed_and_seen_again(tmp_path: Path) -> None:
    root = copy_repository(tmp_path / "clone")
    (root / CONFIG).write_text(yaml.safe_dump(STUDY))
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 20")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    with snakemake(root) as process:
        end = time.monotonic() + 300
        seen = None
        while seen is None:
            assert time.monotonic() < end
            assert process.poll() is None
            seen = training(root)
        assert 0 < seen["numbers"]["update"] < seen["numbers"]["updates"] == 900
        assert seen["numbers"]["selection_loss_nats"] > 0
        assert seen["numbers"]["left_s"] > 0
        assert "loading the dataset generated_reviews\n" in (root / seen["log"]).read_text()
        record = next(
            json.loads(file.read_text()) for file in (root / "results/.progress").glob("*.json")
        )
        os.kill(record["pid"], signal.SIGKILL)
        assert process.wait(120) != 0
    after = status(root)
    assert after["kinds"]["train"] == {"failed": 1}
    assert after["running"] == []
    (failed,) = after["failed"]
    assert (failed["name"], failed["state"], failed["log"]) == (NAME, "killed", seen["log"])

    with snakemake(root) as process:
        assert process.wait(300) == 0
    after = status(root)
    assert after["kinds"]["train"] == {"done": 1}
    assert after["failed"] == []
    assert list((root / "results/.progress").glob("*.json")) == []
