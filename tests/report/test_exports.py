"""What users of published systems A and C read: names and units are theirs, numbers the tables'."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from helpers.repository import CLEAN, ROOT, run_snakemake
from helpers.stored import change
from rankwise.analysis import tables, tidy
from rankwise.checks import preflight
from rankwise.core import provenance, result
from rankwise.core.config import ConfigError
from rankwise.measure.flops import count
from rankwise.measure.memory import ledger, persistent
from rankwise.measure.memory.leaf_outputs import leaf_outputs, leaf_outputs_bytes
from rankwise.measure.speed import latency
from rankwise.report import exports, system_a
from rankwise.study import jobs, outputs
from rankwise.study.plan import Cell, Plan

# Published system A, rSVD/graph/optimizer_memory_comparison.csv at ec7ccdb, whose rSVDAdam is our
# rsvd.
COMPARISON = """\
optimizer,rank,memory_mb,memory_bytes,savings_mb,savings_pct
Adam,,510.8265838623047,535640496,0,0
rsvd,4,2.9188766479492188,3060664,507.90770721435547,99.4285973478749
rsvd,8,5.365074157714844,5625688,505.46150970458984,98.9497269078774
rsvd,16,10.249656677246094,10747544,500.5769271850586,97.99351541187431
rsvd,64,39.572776794433594,41495064,471.2538070678711,92.25318766787193
rsvd,128,78.6728744506836,82494488,432.1537094116211,84.59890754787143
"""
# Its memory_breakdown.csv and memory_breakdown_r16.csv: rows of one optimizer and of its tensors.
ADAM = {
    "batch_size": 32,
    "parameters_total": 267820040,
    "optimizer_states_total": 535640496,
    "optimizer_state_step": 416,
    "optimizer_state_exp_avg": 267820040,
    "optimizer_state_exp_avg_sq": 267820040,
    "activations_total": 1246298368,
    "gradients_total": 267820040,
    "total_components": 2317578944,
}
RSVD_16 = {
    "batch_size": 32,
    "parameters_total": 267820040,
    "optimizer_states_total": 10747544,
    "optimizer_state_basis": 4677256,
    "optimizer_state_exp_avg": 2786304 + 248840,
    "optimizer_state_exp_avg_sq": 2786304 + 248840,
    "activations_total": 1246298368,
    "gradients_total": 267820040,
    "total_components": 1792685992,
}
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
DISTILBERT = {
    "models": ["distilbert"],
    "datasets": ["sst2"],
    "methods": ["full", "rsvd"],
    "measured": False,
}
TINY = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora"],
    "ranks": [2],
}
STUDY = {
    "name": "t",
    "question": "?",
    "device": "cpu",
    "train": [{**TINY, "seeds": [3, 5]}],
    "profile": [
        {**DISTILBERT, "ranks": [4, 8, 16, 64, 128], "measurements": ["memory"]},
        {**DISTILBERT, "ranks": [16], "measurements": ["ledger", "flops"]},
        {
            **TINY,
            "measurements": ["memory", "flops", "forward"],
            "batch_sizes": [4, 1],
            "lengths_tokens": [16, 8],
        },
    ],
}
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux",
    "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
}


@pytest.fixture(scope="module")
def study() -> Plan:
    return Plan(STUDY, ROOT)


@pytest.fixture(scope="module")
def results(study: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with real profiles, and training runs as the loop writes them.

    One training run was on CUDA and one diverged.
    """
    root = tmp_path_factory.mktemp("study")
    measures = {
        "memory": persistent.memory,
        "flops": count.flops,
        "ledger": measured_ledger,
        "forward": lambda request: latency.forward(request, processes=1),
    }
    for measurement, measure in measures.items():
        for cell in study.cells(measurement):
            request = study.request(measurement, cell)
            path = root / study.path(measurement, cell)
            result.write(path, request, measure(request), ENVIRONMENT)
    for cell in study.cells("train"):
        request = study.request("train", cell)
        result.write(root / study.path("train", cell), request, trained(cell), ENVIRONMENT)
    for name in outputs.export_tables(study):
        tabulate(study, name, root)
    return root / study.results


def measured_ledger(request: dict) -> dict:
    measured = ledger.ledger(request)
    measured["metrics"]["leaf_outputs_bytes"] = leaf_outputs_bytes(request)
    return measured


def trained(cell: Cell) -> dict:
    if cell.seed == 5 and cell.method == "lora":
        return {"status": "diverged", "reason": "loss nan by update 3"}
    evaluated = {
        "selection_loss_nats": 0.5,
        "selection_accuracy_fraction": 0.75,
        "learning_rate": 1e-3,
    }
    learned = {**evaluated, "train_loss_nats": 0.25, "gradient_norm": 2.0}
    history = [
        {"epoch": 0.0, "update": 0, **evaluated},
        {"epoch": 1.0, "update": 9, **learned},
        {"epoch": 2.0, "update": 18, **learned},
    ]
    metrics = {
        "accuracy_fraction": 0.8,
        "eval_loss_nats": 0.4,
        "samples": 600,
        "tokens": 9000,
        "updates": 18,
        "trainable_parameters": 700,
        "total_parameters": 81602,
    }
    cost = {
        "train_time_s": 8.0,
        "evaluation_time_s": 2.0,
        "step_time_s": 0.4,
        "throughput_samples_per_s": 75.0,
    }
    if cell.method == "full":
        cost["peak_allocated_bytes"] = 3 * 2**20 + 2**19
    return {"metrics": metrics, "history": history, "cost": cost, "split": "validation"}


def tabulate(plan: Plan, name: str, root: Path) -> None:
    measurement = outputs.TABLE_SOURCES[name]
    planned = [
        tidy.Planned(root / job.path, job.cell.method_name)
        for job in jobs.cell_jobs(plan, measurement)
    ]
    frame = tidy.listed(planned, name) if name in outputs.LISTS else tidy.collect(planned)
    tables.write(frame, root / plan.results / "tables" / name)


@pytest.fixture(scope="module")
def exported(study: Plan, results: Path) -> Path:
    """The exports, written over files of an earlier job."""
    folder = results / "exports"
    graph = folder / "system_a" / "gpt2" / "rsvd" / "imdb"
    result.write_text(graph / "r4" / "epoch_loss.csv", "epoch,train_loss,eval_loss\n1,1,1\n")
    result.write_text(folder / "system_c" / "gpt2-imdb-rsvd-r4-seed0" / "summary.json", "{}")
    exports.exports(outputs.exports_request(study), folder / "README.md")
    return folder


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def metrics_of(path: Path, column: str) -> dict[str, int]:
    assert path.read_text().startswith(f"metric,{column}\n")
    return {row["metric"]: int(row[column]) for row in rows(path)}


# Leaf outputs ----------------------------------------------------------------------------------


def test_leaf_outputs_of_a_model_that_looks_into_its_tokens() -> None:
    """GPT-2 searches its tokens for padding; the sizes are counted by hand, in widths of 768."""
    grid = {
        "models": ["gpt2"],
        "datasets": ["wikitext2"],
        "methods": ["full"],
        "ranks": [1],
        "batch_size": 2,
        "measured": False,
        "measurements": ["ledger"],
        "sequence_length_tokens": 16,
    }
    plan = Plan({**STUDY, "train": [], "profile": [grid]}, ROOT)
    request = plan.request("ledger", Cell("gpt2", "wikitext2", "full", 0))
    attention = 1 + 3 + 1 + 1  # norm, the three projections, projection, dropout
    feed_forward = 1 + 4 + 4 + 1 + 1  # norm, projection up, GELU, projection down, dropout
    around = 1 + 1 + 1  # embeddings, their dropout, the last norm
    per_token = 768 * (12 * (attention + feed_forward) + around) + 50257  # logits
    positions = 16 * 768  # embedded once for all samples
    assert leaf_outputs_bytes(request) == 4 * (2 * 16 * per_token + positions)


class TwiceCalled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4, dtype=torch.bfloat16)
        self.outer = nn.Sequential(nn.Linear(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.linear(self.linear(x)).float())


def test_a_twice_called_leaf_counts_twice_and_no_hook_is_left() -> None:
    model = TwiceCalled()
    inputs = {"x": torch.zeros(3, 4, dtype=torch.bfloat16)}
    for _ in range(2):  # a hook that was left would count again
        assert leaf_outputs(model, inputs) == 2 * (3 * 4 * 2) + 3 * 6 * 4


# System A --------------------------------------------------------------------------------------


def test_optimizer_memory_is_the_published_file_to_the_byte(exported: Path) -> None:
    graph = exported / "system_a/distilbert/rsvd/sst2"
    assert (graph / "optimizer_memory_comparison.csv").read_text() == COMPARISON
    head, adam, _, _, r16, *_ = COMPARISON.splitlines()
    assert (graph / "r16_opt/optimizer_memory.csv").read_text() == f"{head}\n{r16}\n"
    without_rank = f"{head}\n{adam}\n".replace(",rank,", ",").replace(",,", ",")
    assert (graph / "adam_opt/optimizer_memory.csv").read_text() == without_rank


@pytest.mark.parametrize(
    ("name", "published"), [("memory_breakdown.csv", ADAM), ("memory_breakdown_r16.csv", RSVD_16)]
)
def test_memory_breakdown_has_the_published_components(
    exported: Path, name: str, published: dict
) -> None:
    """The published components and no others: nothing was measured, so there are no cuda_*."""
    components = rows(exported / "system_a/distilbert/rsvd/sst2" / name)
    assert list(components[0]) == ["component", "memory_mb", "memory_bytes", "details"]
    assert {row["component"]: int(row["memory_bytes"]) for row in components} == published
    in_mb = {row["component"]: float(row["memory_mb"]) for row in components}
    assert round(in_mb["parameters_total"], 4) == 255.4131
    assert round(in_mb["activations_total"], 4) == 1188.5627


def test_a_breakdown_without_a_ledger_has_no_activations_and_no_total(exported: Path) -> None:
    components = rows(exported / "system_a/distilbert/rsvd/sst2/memory_breakdown_r4.csv")
    assert {row["component"]: int(row["memory_bytes"]) for row in components} == {
        "parameters_total": 267820040,
        "optimizer_states_total": 3060664,
        "gradients_total": 267820040,
    }


def test_what_cuda_measured_is_in_the_breakdown_and_the_program_memory(
    study: Plan, results: Path, tmp_path: Path
) -> None:
    shutil.copytree(results / "tables", tmp_path / "own/tables")
    measured = {
        "device": "cuda",
        "measured_peak_bytes": 2**31,
        "measured_reserved_bytes": 2**32,
        "measured_evaluation_peak_bytes": 2**29,
    }
    table = tables.read(results / "tables/ledger.csv").assign(**measured)
    table.to_csv(tmp_path / "own/tables/ledger.csv", index=False)
    request = {**outputs.exports_request(study), "tables": ["memory", "ledger", "state"]}
    exports.exports(request, tmp_path / "own/exports/README.md")
    graph = tmp_path / "own/exports/system_a/distilbert/rsvd/sst2"
    components = {row["component"]: row for row in rows(graph / "memory_breakdown_r16.csv")}
    assert components["cuda_peak_allocated_mb"]["memory_mb"] == "2048.0"
    assert components["cuda_peak_reserved_mb"]["memory_bytes"] == str(2**32)
    program = metrics_of(graph / "r16/total_program_memory.csv", "value_bytes")
    assert program == {"program_total_peak_memory": 2**32}
    peak = metrics_of(graph / "r16/forward_pass/peak_forward_memory.csv", "value_bytes")
    assert peak["peak_memory"] == 2**29 != peak["predicted_peak_memory"]


def test_flops_are_the_published_ones_by_step_and_epoch(exported: Path) -> None:
    folder = exported / "system_a"
    path = folder / "distilbert/rsvd/sst2/r16/flops_profiler_stats.csv"
    step = 1_048_121_972_736
    assert metrics_of(path, "value") == {"step_flops": step, "epoch_flops": step * 2105}
    # The number of rows of generated data is not in its entry, so an epoch is unknown.
    unknown = folder / "tiny/lora/generated_reviews/r2/flops_profiler_stats.csv"
    assert list(metrics_of(unknown, "value")) == ["step_flops"]


def test_forward_files_are_of_the_smallest_unmerged_pass(exported: Path, results: Path) -> None:
    folder = exported / "system_a/tiny/lora/generated_reviews/r2/forward_pass"
    table = tables.read(results / "tables/forward.csv")
    is_smallest = (table["batch_size"] == 1) & (table["sequence_length_tokens"] == 8)
    is_un_merged = (table["method"] == "lora") & ~table["merged"]
    [flops] = table.loc[is_smallest & is_un_merged, "forward_flops"]
    expected = {"forward_flops": flops, "batch_size": 1, "sequence_length_tokens": 8}
    assert metrics_of(folder / "forward_flops.csv", "value") == expected


def test_the_forward_peak_is_predicted_if_it_was_not_measured(exported: Path) -> None:
    folder = exported / "system_a/distilbert/full/sst2/r0/forward_pass"
    peak = metrics_of(folder / "peak_forward_memory.csv", "value_bytes")
    assert peak["peak_memory"] == peak["predicted_peak_memory"]
    assert peak["peak_memory"] > ADAM["parameters_total"]


def test_losses_and_peaks_stand_beside_their_epoch(exported: Path) -> None:
    graph = exported / "system_a/tiny/full/generated_reviews/r0"
    losses = "epoch,train_loss,eval_loss\n1,0.25,0.5\n2,0.25,0.5\n"
    for folder in (graph, graph / "seed5"):
        assert (folder / "epoch_loss.csv").read_text() == losses
        peak = (folder / "epoch_peak_memory.csv").read_text()
        assert peak == "epoch,peak_memory_bytes\n2,3670016\n"


def test_what_was_not_measured_is_missing(exported: Path) -> None:
    graph = exported / "system_a/tiny/lora/generated_reviews"
    assert not list(graph.rglob("epoch_peak_memory.csv"))  # trained on a CPU
    assert not list(exported.rglob("total_program_memory.csv"))
    assert not (graph / "r2/seed5").exists()  # diverged: no losses


def test_fractions_of_an_epoch_stay(tmp_path: Path) -> None:
    cell = {"model": "m", "dataset": "d", "method": "full", "rank": 0, "seed": 1}
    loss = {"train_loss_nats": 0.5, "selection_loss_nats": 0.25}
    history = pd.DataFrame([{**cell, "epoch": epoch, **loss} for epoch in (0.5, 1.0)])
    system_a.write(tmp_path, {"history": history, "runs": pd.DataFrame([cell])}, {})
    lines = (tmp_path / "m/full/d/r0/epoch_loss.csv").read_text().splitlines()
    assert lines[1:] == ["0.5,0.5,0.25", "1,0.5,0.25"]


# System C --------------------------------------------------------------------------------------


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


# The folder ------------------------------------------------------------------------------------


def test_what_an_earlier_job_left_is_gone(exported: Path) -> None:
    assert {path.name for path in (exported / "system_a").iterdir()} == {"distilbert", "tiny"}
    assert len(list((exported / "system_c").iterdir())) == 4
    assert not list(exported.rglob("*gpt2*"))


def test_the_readme_names_every_file_that_is_there(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    for path in exported.rglob("*.*"):
        name = path.name
        if "system_a" in path.parts:
            # model / method / dataset / the file as the README names it
            name = "/".join(path.relative_to(exported / "system_a").parts[3:])
        pattern = re.sub(r"seed[0-9]+/", "", re.sub(r"r[0-9]+", "r{rank}", name))
        assert name == "README.md" or f"`{pattern}`" in text


def test_a_study_without_results_has_a_readme_alone(tmp_path: Path) -> None:
    exports.exports(
        {"tables": [], "train_samples": {}, "command": "x"}, tmp_path / "exports/README.md"
    )
    assert [path.name for path in (tmp_path / "exports").rglob("*")] == ["README.md"]


def test_tables_of_nothing_but_failures_export_nothing(tmp_path: Path) -> None:
    cell = {"model": "m", "dataset": "d", "method": "full", "rank": 0}
    failed = pd.DataFrame([{**cell, "status": "unsupported", "reason": "no"}])
    empty = pd.DataFrame(columns=["model", "dataset", "method", "rank", "seed"])
    for name, frame in (("memory", failed), ("ledger", failed), ("state", empty)):
        tables.write(frame, tmp_path / "tables" / name)
    request = {"tables": ["memory", "ledger", "state"], "train_samples": {}, "command": "x"}
    exports.exports(request, tmp_path / "exports/README.md")
    assert [path.name for path in (tmp_path / "exports").rglob("*.*")] == ["README.md"]


# The workflow ----------------------------------------------------------------------------------


def test_the_target_is_known_and_a_mistyped_one_refused(plan: Plan) -> None:
    assert "results/demo/exports/README.md" in jobs.targets(plan)
    message = r"results/demo/exports/READMEE\.md.*nearest: results/demo/exports/README\.md"
    with pytest.raises(ConfigError, match=message):
        preflight.check_targets(["results/demo/exports/READMEE.md"], plan)


@pytest.mark.slow
def test_the_workflow_makes_it_from_the_studys_tables_only(plan: Plan, clone: Path) -> None:
    study = ("--configfile", "config/demo.yaml")
    planned = run_snakemake(clone, "-n", "results/demo/exports/README.md", *study)
    assert planned.returncode == 0, planned.stderr
    counts = re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE)
    job_counts = {rule: int(count) for rule, count in counts}
    assert job_counts["exports"] == 1
    assert job_counts["collect"] == len(outputs.export_tables(plan)) >= 5
    assert "figure" not in job_counts
    everything = run_snakemake(clone, "-n", *study)
    assert "exports" not in everything.stdout


def test_the_job_verifies_its_sources_and_writes(
    study: Plan, results: Path, tmp_path: Path
) -> None:
    ignore = shutil.ignore_patterns("exports")
    copy = shutil.copytree(results, tmp_path / study.results, ignore=ignore)
    output = copy / "exports/README.md"
    request = json.dumps(jobs.document(study, outputs.EXPORTS).request)
    command = [sys.executable, str(ROOT / "workflow_scripts/exports.py"), "--request", request]
    command += ["--output", str(output)]
    environment = {**CLEAN, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    file = output.parent / "system_a/distilbert/rsvd/sst2/optimizer_memory_comparison.csv"
    assert file.read_text() == COMPARISON
