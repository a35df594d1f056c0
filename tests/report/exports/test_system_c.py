"""What users of published system C read: names and units are theirs, numbers the tables'."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers.exported import rows
from helpers.stored import change
from rankwise.core import provenance, result
from rankwise.report import exports
from rankwise.study import outputs
from rankwise.study.plan import Cell, Plan

# The columns of system C's summary.csv.
SUMMARY = [
    "run_id",
    "method",
    "model",
    "dataset",
    "rank",
    "epochs",
    "train_batch_size",
    "eval_batch_size",
    "lr",
    "seed",
    "eval_accuracy",
    "final_eval_loss",
    "wall_clock_s",
    "epoch_time_mean_s",
    "throughput",
    "step_latency_p50_s",
    "step_latency_p95_s",
    "peak_mem_torch_MB",
    "peak_mem_nvml_MB",
    "trainable_params",
    "total_params",
    "git_commit",
    "gpu_name",
]


def test_a_summary_has_every_field_and_null_where_nothing_is_known(
    exported: Path, study: Plan
) -> None:
    request = study.request("train", Cell("tiny", "generated_reviews", "full", 0, 3))
    folder = exported / "system_c/tiny-generated_reviews-full-r0-seed3"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == {
        "run_id": folder.name,
        "method": "full",
        "model": "tiny",
        "dataset": "generated_reviews",
        "rank": None,
        "epochs": 2,
        "train_batch_size": request["schedule"]["batch_size"],
        "eval_batch_size": request["schedule"]["eval_batch_size"],
        "lr": request["method"]["learning_rate"],
        "seed": 3,
        "eval_accuracy": 0.8,
        "final_eval_loss": 0.4,
        "wall_clock_s": 10.0,
        "epoch_time_mean_s": 4.0,
        "throughput": 60.0,
        "step_latency_p50_s": None,
        "step_latency_p95_s": None,
        "peak_mem_torch_MB": 3.5,
        "peak_mem_nvml_MB": None,
        "trainable_params": 700,
        "total_params": 81602,
        "git_commit": None,
        "gpu_name": None,
    }
    [row] = rows(folder / "summary.csv")
    assert list(row) == SUMMARY
    assert row == {name: "" if summary[name] is None else str(summary[name]) for name in SUMMARY}


def test_a_run_that_diverged_is_there_without_numbers(exported: Path) -> None:
    folder = exported / "system_c/tiny-generated_reviews-lora-r2-seed5"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["rank"], summary["seed"]) == (2, 5)
    unknown = (
        "epochs",
        "eval_accuracy",
        "final_eval_loss",
        "wall_clock_s",
        "epoch_time_mean_s",
        "throughput",
        "peak_mem_torch_MB",
    )
    assert {summary[name] for name in unknown} == {None}
    environment = json.loads((folder / "env.json").read_text())
    assert (environment["status"], environment["reason"]) == ("diverged", "loss nan by update 3")
    assert rows(folder / "metrics.csv") == []


def test_the_environment_names_the_run_and_its_options(exported: Path, study: Plan) -> None:
    folder = exported / "system_c/tiny-generated_reviews-lora-r2-seed3"
    environment = json.loads((folder / "env.json").read_text())
    request = study.request("train", Cell("tiny", "generated_reviews", "lora", 2, 3))
    expected = {
        "request_digest": provenance.digest(request),
        "torch": "2.13.0",
        "python": "3.11.7",
        "seed": 3,
        "gpu_name": None,
        "cuda_available": None,
        "hostname": None,
    }
    assert {name: environment[name] for name in expected} == expected
    options = environment["argv"]
    assert (options["lr"], options["max_length"], options["rank"]) == (2e-4, 32, 2)


def test_metrics_have_the_trainers_names(exported: Path) -> None:
    folder = exported / "system_c/tiny-generated_reviews-lora-r2-seed3"
    frame = pd.read_csv(io.StringIO((folder / "metrics.csv").read_text()))
    names = ["epoch", "eval_accuracy", "eval_loss", "grad_norm", "learning_rate", "loss", "step"]
    assert list(frame) == names
    assert frame["step"].tolist() == [0, 9, 18]
    assert frame["eval_loss"].tolist() == [0.5, 0.5, 0.5]
    assert frame["loss"].isna().tolist() == [True, False, False]


def test_a_run_that_is_not_in_the_table_is_refused_by_name(
    study: Plan, results: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(results, tmp_path / "copy", symlinks=False)
    path = copy / Path(study.path("train", study.cells("train")[0])).relative_to(study.results)
    changed = result.read(path)["request"]
    changed["schedule"]["epochs"] += 1
    change(path, request=changed)
    with pytest.raises(ValueError, match=r"train\.json: it answers request \w+; allowed: a result"):
        exports.exports(outputs.exports_request(study), copy / "exports/README.md")
