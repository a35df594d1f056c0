"""A rehearsal of `make gpu-check` on a CPU: every part, on tiny models, through the Makefile."""

import json
import subprocess
import sys

import pytest

from helpers.repository import CLEAN, ROOT
from rankwise.measure.memory.ledger import LIMIT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Name -> what the report says of each part."""
    folder = tmp_path_factory.mktemp("gpu_check")
    # No part is cut short, however busy this machine is.
    options = f"--minutes 60 --output {folder} --logs {folder}/logs"
    command = ["make", "gpu-check", "REHEARSE=1", f"PYTHON={sys.executable}", f"OPTIONS={options}"]
    done = subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((folder / "rehearsal.json").read_text())
    assert report["machine"]["rehearsal"] is True
    assert (folder / "rehearsal.md").read_text().startswith("# Rehearsal on a CPU")
    assert {part["status"] for part in report["parts"].values()} == {"done"}, report["parts"]
    return report["parts"]


def reasons(part: dict) -> list[str]:
    return [row["reason"] for row in part["rows"] if "reason" in row]


def test_the_matrix_is_predicted_and_measured(parts: dict) -> None:
    rows = parts["matrix"]["rows"]
    assert reasons(parts["matrix"]) == []
    (plain,) = (row for row in rows if row["grid"] == "fp32")
    assert abs(plain["error_percent"]) <= 100 * LIMIT
    expected = 100 * (plain["predicted_bytes"] - plain["measured_bytes"]) / plain["measured_bytes"]
    assert plain["error_percent"] == pytest.approx(expected, abs=1e-3)


def test_the_boundary_is_the_predicted_one(parts: dict) -> None:
    for row in parts["boundary"]["rows"]:
        assert row["it_runs"]
        assert row["the_next_one_fails"]
        assert row["true_batch"] == row["predicted_batch"] > 0


def test_interrupted_trainings_give_the_same_bytes(parts: dict) -> None:
    rows = {row["interruption"]: row for row in parts["resume"]["rows"]}
    assert set(rows) == {"none, run twice", "SIGTERM", "SIGKILL"}
    assert all(row["same_bytes"] for row in rows.values())
    assert rows["SIGTERM"]["exit_status"] == 128 + 15
    assert rows["SIGKILL"]["exit_status"] == -9
    assert all(0 < rows[name]["resumed_after_update"] < 20 for name in ("SIGTERM", "SIGKILL"))


def test_trainings_that_share_give_the_same_bytes(parts: dict) -> None:
    serial, packed, both = parts["packing"]["rows"]
    assert both["same_bytes"]
    assert len(serial["digests"]) == 1  # all trainings are the same one
    assert both["ratio"] == pytest.approx(serial["makespan_s"] / packed["makespan_s"])


def test_speed_is_compared(parts: dict) -> None:
    rows = {row["other"]: row for row in parts["speed"]["rows"]}
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["ours_s"] / row["other_s"])
    assert {"bare peft", "Trainer of transformers"} <= set(rows)


def test_tests_that_mean_something_on_a_cpu_run_there(parts: dict) -> None:
    outcomes = [row["outcome"] for row in parts["cuda_tests"]["rows"]]
    assert "failed" not in outcomes
    assert outcomes.count("passed") >= 11


def test_what_a_cpu_cannot_tell_has_a_reason(parts: dict) -> None:
    meters, *timed = parts["energy"]["rows"]
    assert meters["reason"] == "no NVML here"
    assert all(row["update_time_s"] > 0 for row in timed)
