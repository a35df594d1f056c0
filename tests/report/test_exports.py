"""What users of published systems A and C read: names, columns and units are theirs, numbers are the tables'."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers.repository import CLEAN, ROOT, run_snakemake
from rankwise.analysis import tables, tidy
from rankwise.checks import preflight
from rankwise.core import provenance, result
from rankwise.core.config import ConfigError
from rankwise.measure.flops import count
from rankwise.measure.memory import ledger, persistent
from rankwise.measure.memory.leaf_outputs import leaf_outputs_bytes
from rankwise.measure.speed import latency
from rankwise.report import exports
from rankwise.study import jobs, outputs
from rankwise.study.plan import Cell, Plan

# Published system A, rSVD/graph/optimizer_memory_comparison.csv at ec7ccdb, whose rSVDAdam is our rsvd.
COMPARISON = """\
optimizer,rank,memory_mb,memory_bytes,savings_mb,savings_pct
Adam,,510.8265838623047,535640496,0,0
rsvd,4,2.9188766479492188,3060664,507.90770721435547,99.4285973478749
rsvd,8,5.365074157714844,5625688,505.46150970458984,98.9497269078774
rsvd,16,10.249656677246094,10747544,500.5769271850586,97.99351541187431
rsvd,64,39.572776794433594,41495064,471.2538070678711,92.25318766787193
rsvd,128,78.6728744506836,82494488,432.1537094116211,84.59890754787143
"""
# Its memory_breakdown.csv and memory_breakdown_r16.csv; rows of one optimizer and of its tensors.
ADAM = {
    "batch_size": 32, "parameters_total": 267820040, "optimizer_states_total": 535640496, "optimizer_state_step": 416,
    "optimizer_state_exp_avg": 267820040, "optimizer_state_exp_avg_sq": 267820040, "activations_total": 1246298368,
    "gradients_total": 267820040, "total_components": 2317578944,
}  # fmt: skip
RSVD_16 = {
    "batch_size": 32, "parameters_total": 267820040, "optimizer_states_total": 10747544, "optimizer_state_basis": 4677256,
    "optimizer_state_exp_avg": 2786304 + 248840, "optimizer_state_exp_avg_sq": 2786304 + 248840,
    "activations_total": 1246298368, "gradients_total": 267820040, "total_components": 1792685992,
}  # fmt: skip
SUMMARY = [
    "run_id", "method", "model", "dataset", "rank", "epochs", "train_batch_size", "eval_batch_size", "lr", "seed",
    "eval_accuracy", "final_eval_loss", "wall_clock_s", "epoch_time_mean_s", "throughput", "step_latency_p50_s",
    "step_latency_p95_s", "peak_mem_torch_MB", "peak_mem_nvml_MB", "trainable_params", "total_params", "git_commit", "gpu_name",
]  # fmt: skip
DISTILBERT = {"models": ["distilbert"], "datasets": ["sst2"], "measured": False}
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
        {
            **DISTILBERT,
            "methods": ["full", "rsvd"],
            "ranks": [4, 8, 16, 64, 128],
            "measurements": ["memory"],
        },
        {
            **DISTILBERT,
            "methods": ["full", "rsvd"],
            "ranks": [16],
            "measurements": ["ledger", "flops"],
        },
        {
            **TINY,
            "measurements": ["memory", "flops", "forward"],
            "batch_sizes": [4, 1],
            "lengths_tokens": [16, 8],
        },
    ],
}
MEASURES = {"memory": persistent.memory, "flops": count.flops, "ledger": ledger.ledger}
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
    """A results folder: real profiles; training runs as the loop writes them, one of them on CUDA and one diverged."""
    root = tmp_path_factory.mktemp("study")
    for measurement, measure in MEASURES.items():
        for cell in study.cells(measurement):
            request = study.request(measurement, cell)
            found = measure(request)
            if measurement == "ledger":
                found["metrics"]["leaf_outputs_bytes"] = leaf_outputs_bytes(request)
            result.write(root / study.path(measurement, cell), request, found, ENVIRONMENT)
    for cell in study.cells("forward"):
        request = study.request("forward", cell)
        result.write(
            root / study.path("forward", cell),
            request,
            latency.forward(request, processes=1),
            ENVIRONMENT,
        )
    for cell in study.cells("train"):
        result.write(
            root / study.path("train", cell),
            study.request("train", cell),
            trained(cell),
            ENVIRONMENT,
        )
    for name in outputs.export_tables(study):
        tabulate(study, name, root)
    return root / "results"


def trained(cell: Cell) -> dict:
    if cell.seed == 5 and cell.method == "lora":
        return {"status": "diverged", "reason": "loss nan by update 3"}
    curve = {"selection_loss_nats": 0.5, "selection_accuracy_fraction": 0.75, "learning_rate": 1e-3}
    learned = {**curve, "train_loss_nats": 0.25, "gradient_norm": 2.0}
    history = [
        {"epoch": 0.0, "update": 0, **curve}, {"epoch": 1.0, "update": 9, **learned}, {"epoch": 2.0, "update": 18, **learned},
    ]  # fmt: skip
    metrics = {
        "accuracy_fraction": 0.8, "eval_loss_nats": 0.4, "samples": 600, "tokens": 9000, "updates": 18,
        "trainable_parameters": 700, "total_parameters": 81602,
    }  # fmt: skip
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
        (root / plan.path(measurement, cell), plan.request(measurement, cell))
        for cell in plan.cells(measurement)
    ]
    frame = tidy.listed(planned, name) if name in outputs.LISTS else tidy.collect(planned)
    tables.write(frame, root / "results" / "tables" / name)


@pytest.fixture(scope="module")
def exported(study: Plan, results: Path) -> Path:
    leftover = results / "exports" / "system_a" / "gpt2" / "rsvd" / "imdb" / "r4" / "epoch_loss.csv"
    result.write_text(leftover, "epoch,train_loss,eval_loss\n1,1,1\n")
    result.write_text(
        results / "exports" / "system_c" / "gpt2-imdb-rsvd-r4-seed0" / "summary.json", "{}"
    )
    exports.exports(outputs.exports_request(study), results / "exports" / "README.md")
    return results / "exports"


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def metrics_of(path: Path, column: str) -> dict[str, int]:
    assert path.read_text().startswith(f"metric,{column}\n")
    return {row["metric"]: int(row[column]) for row in rows(path)}


# System A -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "rank"), [("full", 0), ("rsvd", 16)])
def test_leaf_outputs_are_the_published_ones(study: Plan, method: str, rank: int) -> None:
    assert (
        leaf_outputs_bytes(study.request("ledger", Cell("distilbert", "sst2", method, rank)))
        == 1_246_298_368
    )


def test_leaf_outputs_of_a_model_that_looks_into_its_tokens() -> None:
    """GPT-2 searches them for padding, and its layers are other ones; counted by hand, in widths of 768."""
    grid = {
        "models": ["gpt2"],
        "datasets": ["wikitext2"],
        "methods": ["full"],
        "ranks": [1],
        "batch_size": 2,
        "measured": False,
    }
    study = {
        **STUDY,
        "train": [],
        "profile": [{**grid, "measurements": ["ledger"], "sequence_length_tokens": 16}],
    }
    request = Plan(study, ROOT).request("ledger", Cell("gpt2", "wikitext2", "full", 0))
    layer = (1 + 3 + 1 + 1) + (
        1 + 4 + 4 + 1 + 1
    )  # norm, projections, dropout; norm, projection up, GELU, down, dropout
    around = (
        1 + 1 + 1
    )  # embeddings, their dropout, the last norm; positions are embedded once for all samples
    assert leaf_outputs_bytes(request) == 4 * (
        2 * 16 * (768 * (12 * layer + around) + 50257) + 16 * 768
    )


def test_a_twice_called_leaf_counts_twice_and_no_hook_is_left() -> None:
    import torch
    from torch import nn

    from rankwise.measure.memory.leaf_outputs import leaf_outputs

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4, dtype=torch.bfloat16)
            self.outer = nn.Sequential(nn.Linear(4, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.outer(self.linear(self.linear(x)).float())

    model = Twice()
    inputs = {"x": torch.zeros(3, 4, dtype=torch.bfloat16)}
    assert leaf_outputs(model, inputs) == 2 * 3 * 4 * 2 + 3 * 6 * 4
    assert leaf_outputs(model, inputs) == 2 * 3 * 4 * 2 + 3 * 6 * 4


def test_optimizer_memory_is_the_published_file_to_the_byte(exported: Path) -> None:
    graph = exported / "system_a/distilbert/rsvd/sst2"
    assert (graph / "optimizer_memory_comparison.csv").read_text() == COMPARISON
    head, adam, _, _, r16, *_ = COMPARISON.splitlines()
    assert (graph / "r16_opt/optimizer_memory.csv").read_text() == f"{head}\n{r16}\n"
    alone = f"{head}\n{adam}\n".replace(",rank,", ",").replace(",,", ",")
    assert (graph / "adam_opt/optimizer_memory.csv").read_text() == alone


@pytest.mark.parametrize(
    ("name", "published"), [("memory_breakdown.csv", ADAM), ("memory_breakdown_r16.csv", RSVD_16)]
)
def test_memory_breakdown_has_the_published_components(
    exported: Path, name: str, published: dict
) -> None:
    found = rows(exported / "system_a/distilbert/rsvd/sst2" / name)
    assert list(found[0]) == ["component", "memory_mb", "memory_bytes", "details"]
    assert {
        row["component"]: int(row["memory_bytes"]) for row in found
    } == published  # no cuda_* rows: none was measured
    in_mb = {row["component"]: float(row["memory_mb"]) for row in found}
    assert round(in_mb["parameters_total"], 4) == 255.4131
    assert round(in_mb["activations_total"], 4) == 1188.5627


def test_a_breakdown_without_a_ledger_has_no_activations_and_no_total(exported: Path) -> None:
    found = rows(exported / "system_a/distilbert/rsvd/sst2/memory_breakdown_r4.csv")
    assert {row["component"]: int(row["memory_bytes"]) for row in found} == {
        "parameters_total": 267820040, "optimizer_states_total": 3060664, "gradients_total": 267820040,
    }  # fmt: skip


def test_what_cuda_measured_is_in_the_breakdown_and_the_program_memory(
    study: Plan, results: Path, tmp_path: Path
) -> None:
    shutil.copytree(results / "tables", tmp_path / "results/tables")
    frame = tables.read(results / "tables/ledger.csv")
    measured = {
        "measured_peak_bytes": 2**31,
        "measured_reserved_bytes": 2**32,
        "measured_evaluation_peak_bytes": 2**29,
    }
    frame.assign(device="cuda", **measured).to_csv(
        tmp_path / "results/tables/ledger.csv", index=False
    )
    request = {**outputs.exports_request(study), "tables": ["memory", "ledger", "state"]}
    exports.exports(request, tmp_path / "results/exports/README.md")
    graph = tmp_path / "results/exports/system_a/distilbert/rsvd/sst2"
    found = {row["component"]: row for row in rows(graph / "memory_breakdown_r16.csv")}
    assert found["cuda_peak_allocated_mb"]["memory_mb"] == "2048.0"
    assert found["cuda_peak_reserved_mb"]["memory_bytes"] == str(2**32)
    assert metrics_of(graph / "r16/total_program_memory.csv", "value_bytes") == {
        "program_total_peak_memory": 2**32
    }
    peak = metrics_of(graph / "r16/forward_pass/peak_forward_memory.csv", "value_bytes")
    assert peak["peak_memory"] == 2**29 != peak["predicted_peak_memory"]


def test_flops_are_the_published_ones_by_step_and_epoch(exported: Path) -> None:
    found = metrics_of(
        exported / "system_a/distilbert/rsvd/sst2/r16/flops_profiler_stats.csv", "value"
    )
    assert found == {"step_flops": 1_048_121_972_736, "epoch_flops": 1_048_121_972_736 * 2105}
    unknown = metrics_of(
        exported / "system_a/tiny/lora/generated_reviews/r2/flops_profiler_stats.csv", "value"
    )
    assert list(unknown) == ["step_flops"]


def test_forward_files_are_of_the_smallest_unmerged_pass(exported: Path, results: Path) -> None:
    found = metrics_of(
        exported / "system_a/tiny/lora/generated_reviews/r2/forward_pass/forward_flops.csv", "value"
    )
    table = tables.read(results / "tables/forward.csv")
    cell = (table["method"] == "lora") & ~table["merged"] & (table["batch_size"] == 1)
    [flop] = table.loc[cell & (table["sequence_length_tokens"] == 8), "forward_flops"]
    assert found == {"forward_flops": flop, "batch_size": 1, "sequence_length_tokens": 8}
    peak = metrics_of(
        exported / "system_a/distilbert/full/sst2/r0/forward_pass/peak_forward_memory.csv",
        "value_bytes",
    )
    assert (
        peak["peak_memory"] == peak["predicted_peak_memory"] > 267820040
    )  # the weights, and what a forward pass adds


def test_losses_stand_beside_the_epoch_that_they_are_of(exported: Path) -> None:
    graph = exported / "system_a/tiny/full/generated_reviews/r0"
    for folder in (graph, graph / "seed5"):
        assert (
            folder / "epoch_loss.csv"
        ).read_text() == "epoch,train_loss,eval_loss\n1,0.25,0.5\n2,0.25,0.5\n"
        assert (
            folder / "epoch_peak_memory.csv"
        ).read_text() == "epoch,peak_memory_bytes\n2,3670016\n"


def test_what_was_not_measured_is_not_there(exported: Path) -> None:
    graph = exported / "system_a/tiny/lora/generated_reviews"
    assert not list(graph.rglob("epoch_peak_memory.csv"))  # trained on a CPU
    assert not list(exported.rglob("total_program_memory.csv"))
    assert not (graph / "r2/seed5").exists()  # diverged: no losses


def test_fractions_of_an_epoch_stay(tmp_path: Path) -> None:
    from rankwise.report import system_a

    cell = {"model": "m", "dataset": "d", "method": "full", "rank": 0, "seed": 1}
    loss = {"train_loss_nats": 0.5, "selection_loss_nats": 0.25}
    history = pd.DataFrame([{**cell, "epoch": epoch, **loss} for epoch in (0.5, 1.0)])
    system_a.write(tmp_path, {"history": history, "runs": pd.DataFrame([cell])}, {})
    assert (tmp_path / "m/full/d/r0/epoch_loss.csv").read_text().splitlines()[1:] == [
        "0.5,0.5,0.25",
        "1,0.5,0.25",
    ]


# System C -----------------------------------------------------------------------------------------------------------------


def test_a_summary_has_every_field_and_null_where_nothing_is_known(
    exported: Path, study: Plan
) -> None:
    cell = Cell("tiny", "generated_reviews", "full", 0, 3)
    request, folder = (
        study.request("train", cell),
        exported / "system_c/tiny-generated_reviews-full-r0-seed3",
    )
    found = json.loads((folder / "summary.json").read_text())
    assert found == {
        "run_id": folder.name, "method": "full", "model": "tiny", "dataset": "generated_reviews", "rank": None, "epochs": 2,
        "train_batch_size": request["schedule"]["batch_size"], "eval_batch_size": request["schedule"]["eval_batch_size"],
        "lr": request["method"]["learning_rate"], "seed": 3, "eval_accuracy": 0.8, "final_eval_loss": 0.4, "wall_clock_s": 10.0,
        "epoch_time_mean_s": 4.0, "throughput": 60.0, "step_latency_p50_s": None, "step_latency_p95_s": None,
        "peak_mem_torch_MB": 3.5, "peak_mem_nvml_MB": None, "trainable_params": 700, "total_params": 81602, "git_commit": None,
        "gpu_name": None,
    }  # fmt: skip
    [row] = rows(folder / "summary.csv")
    assert list(row) == SUMMARY
    assert row == {name: "" if found[name] is None else str(found[name]) for name in SUMMARY}


def test_a_run_that_diverged_is_there_without_numbers(exported: Path) -> None:
    folder = exported / "system_c/tiny-generated_reviews-lora-r2-seed5"
    found = json.loads((folder / "summary.json").read_text())
    assert (found["rank"], found["seed"]) == (2, 5)
    unknown = (
        "epochs",
        "eval_accuracy",
        "final_eval_loss",
        "wall_clock_s",
        "epoch_time_mean_s",
        "throughput",
        "peak_mem_torch_MB",
    )
    assert {found[name] for name in unknown} == {None}
    environment = json.loads((folder / "env.json").read_text())
    assert (environment["status"], environment["reason"]) == ("diverged", "loss nan by update 3")
    assert rows(folder / "metrics.csv") == []


def test_the_environment_names_the_run_and_its_options(exported: Path, study: Plan) -> None:
    found = json.loads(
        (exported / "system_c/tiny-generated_reviews-lora-r2-seed3/env.json").read_text()
    )
    request = study.request("train", Cell("tiny", "generated_reviews", "lora", 2, 3))
    assert found["request_digest"] == provenance.digest(request)
    assert (found["torch"], found["python"], found["seed"]) == ("2.13.0", "3.11.7", 3)
    assert (found["gpu_name"], found["cuda_available"], found["hostname"]) == (None, None, None)
    assert (found["argv"]["lr"], found["argv"]["max_length"], found["argv"]["rank"]) == (
        2e-4,
        32,
        2,
    )


def test_metrics_have_the_trainers_names(exported: Path) -> None:
    text = (exported / "system_c/tiny-generated_reviews-lora-r2-seed3/metrics.csv").read_text()
    frame = pd.read_csv(io.StringIO(text))
    assert list(frame) == [
        "epoch",
        "eval_accuracy",
        "eval_loss",
        "grad_norm",
        "learning_rate",
        "loss",
        "step",
    ]
    assert frame["step"].tolist() == [0, 9, 18]
    assert frame["eval_loss"].tolist() == [0.5, 0.5, 0.5]
    assert frame["loss"].isna().tolist() == [True, False, False]


def test_a_run_that_is_not_the_tables_is_refused_by_name(
    study: Plan, results: Path, tmp_path: Path
) -> None:
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / study.path("train", study.cells("train")[0])
    one = result.read(path)
    one["request"]["schedule"]["epochs"] += 1
    result.write_json(path, one)
    with pytest.raises(ValueError, match=r"seed3/train\.json: it answers request"):
        exports.exports(outputs.exports_request(study), tmp_path / "results/exports/README.md")


# The folder ---------------------------------------------------------------------------------------------------------------


def test_what_another_study_left_is_gone(exported: Path) -> None:
    assert {path.name for path in (exported / "system_a").iterdir()} == {"distilbert", "tiny"}
    assert len(list((exported / "system_c").iterdir())) == 4
    assert not list(exported.rglob("*gpt2*"))


def test_the_readme_names_every_file_that_is_there(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    for path in (path for path in exported.rglob("*.*") if path.name != "README.md"):
        in_graph = (
            "/".join(path.relative_to(exported / "system_a").parts[3:])
            if "system_a" in path.parts
            else path.name
        )
        assert f"`{re.sub(r'seed[0-9]+/', '', re.sub(r'r[0-9]+', 'r{rank}', in_graph))}`" in text


def test_a_study_without_results_has_a_readme_alone(tmp_path: Path) -> None:
    exports.exports({"tables": [], "train_samples": {}}, tmp_path / "exports/README.md")
    assert [path.name for path in (tmp_path / "exports").rglob("*")] == ["README.md"]


def test_tables_of_nothing_but_failures_export_nothing(tmp_path: Path) -> None:
    cell = {"model": "m", "dataset": "d", "method": "full", "rank": 0}
    for name in ("memory", "ledger"):
        tables.write(
            pd.DataFrame([{**cell, "status": "unsupported", "reason": "no"}]),
            tmp_path / "tables" / name,
        )
    tables.write(
        pd.DataFrame(columns=["model", "dataset", "method", "rank", "seed"]),
        tmp_path / "tables" / "state",
    )
    exports.exports(
        {"tables": ["memory", "ledger", "state"], "train_samples": {}},
        tmp_path / "exports/README.md",
    )
    assert [path.name for path in (tmp_path / "exports").rglob("*.*")] == ["README.md"]


def test_the_target_is_known_and_a_mistyped_one_refused(plan: Plan) -> None:
    assert "results/exports/README.md" in jobs.targets(plan)
    with pytest.raises(
        ConfigError, match=r"results/exports/READMEE\.md.*nearest: results/exports/README\.md"
    ):
        preflight.check_targets(["results/exports/READMEE.md"], plan)


def test_the_workflow_makes_it_from_the_studys_tables_only(plan: Plan, clone: Path) -> None:
    planned = run_snakemake(
        clone, "-n", "results/exports/README.md", "--configfile", "config/demo.yaml"
    )
    assert planned.returncode == 0, planned.stderr
    jobs = {
        line.split()[0]: int(line.split()[1])
        for line in planned.stdout.splitlines()
        if len(line.split()) == 2 and line.split()[1].isdigit()
    }
    assert jobs["exports"] == 1
    assert jobs["collect"] == len(outputs.export_tables(plan)) >= 5
    assert "figure" not in jobs
    everything = run_snakemake(clone, "-n", "--configfile", "config/demo.yaml")
    assert "exports" not in everything.stdout


def test_the_job_verifies_its_sources_and_writes(
    study: Plan, results: Path, tmp_path: Path
) -> None:
    import subprocess
    import sys

    shutil.copytree(results, tmp_path / "results", ignore=shutil.ignore_patterns("exports"))
    command = [
        sys.executable,
        "workflow_scripts/exports.py",
        "--request",
        json.dumps(outputs.exports_request(study)),
    ]
    output = tmp_path / "results/exports/README.md"
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, env=CLEAN
    )
    assert done.returncode == 0, done.stderr
    assert (
        output.parent / "system_a/distilbert/rsvd/sst2/optimizer_memory_comparison.csv"
    ).read_text() == COMPARISON
