"""What users of published system A read: names and units are theirs, numbers the tables'."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers.exported import COMPARISON, rows
from rankwise.analysis import tables
from rankwise.report import exports, system_a
from rankwise.study import outputs
from rankwise.study.plan import Plan

# Published system A, rSVD/graph/memory_breakdown.csv and memory_breakdown_r16.csv at ec7ccdb: rows of one
# optimizer and of its tensors.
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


def metrics_of(path: Path, column: str) -> dict[str, int]:
    assert path.read_text().startswith(f"metric,{column}\n")
    return {row["metric"]: int(row[column]) for row in rows(path)}


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
