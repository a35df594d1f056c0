"""Results of variants: in every table, export and text they have the variant's name, and only they."""

import json
from math import isnan
from pathlib import Path

import pandas as pd
import pytest

from helpers.claims import REGISTRY
from helpers.repository import ROOT
from rankwise.analysis import tables, tidy
from rankwise.analysis.claim_verdicts import judge
from rankwise.analysis.costs import costs
from rankwise.audit.target_jobs import jobs_behind
from rankwise.core import provenance, result
from rankwise.report import accuracy_memory, records, system_a, system_c
from rankwise.report.html import runs as page_runs
from rankwise.study import claims, jobs, outputs, text_outputs
from rankwise.study.plan import Plan

# Named as Rankwise's own studies are, so that a claim's cell is one of this study.
GRID = {"models": ["distilbert"], "datasets": ["sst2"], "methods": ["full", "lora_qkv"]}
OVERRIDE = {"learning_rate": 1.0e-3, "options": {"targets": ["query"]}}
STUDY = {
    "name": "planted",
    "question": "?",
    "device": "cpu",
    "schedule": {"epochs": 2},
    "train": [
        {
            **GRID,
            "ranks": [4],
            "seeds": [0, 1],
            "variants": {
                "query": {"override": {"lora_qkv": OVERRIDE}},
                "short": {"schedule": {"epochs": 1}},
            },
        }
    ],
    "profile": [
        {
            **GRID,
            "ranks": [4],
            "measurements": ["memory"],
            "variants": {"query": {"override": {"lora_qkv": OVERRIDE}}},
        }
    ],
}
ENVIRONMENT = {"python": "3.11", "platform": "Linux", "packages": {}, "differs_from_lock": {}}
# Accuracy of every curve, in per cent.
ACCURACIES = {"full": 90, "lora_qkv": 80, "lora_qkv@query": 70, "full@short": 60, "lora_qkv@short": 50}  # fmt: skip
STATE_BYTES = {"full": 800, "lora_qkv": 80, "lora_qkv@query": 40}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(STUDY, ROOT, "config/planted.yaml")


@pytest.fixture(scope="module")
def root(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result of every cell."""
    root = tmp_path_factory.mktemp("planted")
    for cell in plan.cells("train"):
        share = ACCURACIES[cell.method_name] / 100
        found = {
            "split": "validation",
            "metrics": {"accuracy_fraction": share, "updates": 10, "samples": 80},
            "history": [{"epoch": 1.0, "update": 10, "selection_loss_nats": 1 - share}],
            "examples": {"correct_fraction": [1.0, 0.0]},
            "cost": {"train_time_s": 1.0, "evaluation_time_s": 1.0, "step_time_s": 0.1},
        }
        result.write(
            root / plan.path("train", cell), plan.request("train", cell), found, ENVIRONMENT
        )
    for cell in plan.cells("memory"):
        metrics = {"optimizer_state_bytes": STATE_BYTES[cell.method_name], "weights_bytes": 4}
        found = {"metrics": {**metrics, "gradients_bytes": 4}}
        result.write(
            root / plan.path("memory", cell), plan.request("memory", cell), found, ENVIRONMENT
        )
    return root


def planted(plan: Plan, root: Path, measurement: str) -> list[tidy.Planned]:
    return [
        tidy.Planned(root / job.path, job.cell.method_name if job.cell.variant else None)
        for job in jobs.cell_jobs(plan, measurement)
    ]


# Tables -------------------------------------------------------------------------------------------


def test_a_run_has_the_name_of_its_variant_and_every_setting(plan: Plan, root: Path) -> None:
    runs = tidy.collect(planted(plan, root, "train"))
    accuracies = runs.groupby("method")["accuracy_fraction"].first() * 100
    assert accuracies.round().to_dict() == ACCURACIES
    first = runs[runs["seed"] == 0].set_index("method")
    assert first["variant"].to_dict() == {
        "full": None, "lora_qkv": None, "lora_qkv@query": "query", "full@short": "short", "lora_qkv@short": "short",
    }  # fmt: skip
    plain, query, short = (
        first.loc[name] for name in ("lora_qkv", "lora_qkv@query", "lora_qkv@short")
    )
    assert (plain["learning_rate"], query["learning_rate"]) == (2e-4, 1e-3)
    assert (plain["options_targets"], query["options_targets"]) == ("query, key, value", "query")
    assert [row["schedule_epochs"] for row in (plain, query, short)] == [2, 2, 1]
    assert (plain["options_alpha"], plain["options_rslora"], plain["weights"]) == (4, False, "fp32")
    assert pd.isna(first.loc["full", "options_alpha"])
    # Defaults of rankwise.optim.adamw and of the schema of schedules.
    assert plain["optimizer_module"] == "adamw"
    assert (plain["optimizer_betas"], plain["optimizer_weight_decay"]) == ("0.9, 0.999", 0.01)
    assert (plain["schedule_scheduler"], plain["schedule_batch_size"]) == ("linear", 32)
    assert "schedule_updates" not in runs, "null for every run"


def test_a_list_and_the_examples_have_the_name_too(plan: Plan, root: Path) -> None:
    history = tidy.listed(planted(plan, root, "train"), "history")
    losses = history.groupby("method")["selection_loss_nats"].first().to_dict()
    assert losses == {name: 1 - percent / 100 for name, percent in ACCURACIES.items()}
    assert history.columns[5] == "variant"
    examples = tidy.examples(planted(plan, root, "train"))
    assert set(examples["method"]) == set(ACCURACIES)


def test_a_profile_has_no_settings_of_training(plan: Plan, root: Path) -> None:
    memory = tidy.collect(planted(plan, root, "memory"))
    state = dict(zip(memory["method"], memory["optimizer_state_bytes"], strict=True))
    assert state == STATE_BYTES
    assert not [name for name in memory if name.startswith(("options_", "schedule_"))]


def test_a_study_without_variants_has_no_column_of_them(plan: Plan, root: Path) -> None:
    plain = [one for one in planted(plan, root, "train") if one.method is None]
    assert "variant" not in tidy.collect(plain)


def test_a_claim_on_a_method_is_decided_by_the_method_as_it_is(plan: Plan, root: Path) -> None:
    memory = tidy.collect(planted(plan, root, "memory"))
    cell = {"model": "distilbert", "dataset": "sst2", "method": "lora_qkv", "rank": 4}
    family = {
        "system": "A", "title": "t", "definition": "d", "unit": "bytes", "source": "s", "note": "",
        "table": "memory", "column": "optimizer_state_bytes", "cell": cell, "settings": {},
        "published": 80, "per": 1, "needs": {}, "study": "config/shapes.yaml",
    }  # fmt: skip
    row = judge(claims.expand({"one": family}), {"memory": memory}).iloc[0]
    assert (row["ours"], row["verdict"]) == (80, "reproduced")


# Costs --------------------------------------------------------------------------------------------


def state_of(memory: pd.DataFrame, runs: pd.DataFrame) -> dict[str, float]:
    table = costs({"runs": runs, "memory": memory}).table["optimizer_state_bytes"]
    return table.droplevel(["model", "dataset", "rank"]).to_dict()


def test_a_variant_of_the_schedule_costs_what_its_method_costs(plan: Plan, root: Path) -> None:
    runs = tidy.collect(planted(plan, root, "train"))
    memory = tidy.collect(planted(plan, root, "memory"))
    assert state_of(memory, runs) == {
        "full": 800, "lora_qkv": 80, "lora_qkv@query": 40, "full@short": 800, "lora_qkv@short": 80,
    }  # fmt: skip


def test_a_variant_with_other_options_has_no_cost_of_its_method(plan: Plan, root: Path) -> None:
    runs = tidy.collect(planted(plan, root, "train"))
    memory = tidy.collect(planted(plan, root, "memory"))
    unprofiled = memory[memory["method"] != "lora_qkv@query"]
    state = state_of(unprofiled, runs)
    assert isnan(state.pop("lora_qkv@query"))
    assert state == {"full": 800, "lora_qkv": 80, "full@short": 800, "lora_qkv@short": 80}
    is_short = runs["method"] == "lora_qkv@short"
    larger = runs.assign(schedule_batch_size=runs["schedule_batch_size"].where(~is_short, 64))
    assert isnan(state_of(memory, larger)["lora_qkv@short"])


def test_the_figure_of_memory_names_a_variant_that_was_not_profiled(plan: Plan, root: Path) -> None:
    runs = tidy.collect(planted(plan, root, "train"))
    memory = tidy.collect(planted(plan, root, "memory")).assign(quantization_bytes=0)
    labels = dict(outputs.labels(plan))
    unprofiled = memory[memory["method"] != "lora_qkv@query"]
    figure = accuracy_memory.draw({"runs": runs, "memory": unprofiled}, labels)
    below = figure.axes[0].get_xlabel()
    assert below.endswith("with query r=4: no memory profile")
    assert "epochs" not in below
    complete = accuracy_memory.draw({"runs": runs, "memory": memory}, labels)
    assert "no memory profile" not in complete.axes[0].get_xlabel()


# Behind a row -------------------------------------------------------------------------------------


def test_behind_a_row_are_the_runs_of_its_variant_alone(plan: Plan, root: Path) -> None:
    here = Plan(STUDY, root, "config/planted.yaml")
    for method in ("lora_qkv", "lora_qkv@query"):
        path = root / f"{outputs.table_stem('runs')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables.write(tidy.collect(planted(plan, root, "train")), path.with_suffix(""))
        found = jobs_behind(here, f"{outputs.table_stem('runs')}.csv", f"method={method}")
        assert [job.cell.method_name for job in found] == [method] * 2


def test_behind_a_claim_are_the_results_of_the_method_as_it_is(root: Path) -> None:
    here = Plan(STUDY, root, "config/planted.yaml")
    name = next(
        name
        for name, claim in REGISTRY.items()
        if claim.get("table") == "memory"
        and claim["cell"]
        == {"model": "distilbert", "dataset": "sst2", "method": "lora_qkv", "rank": 4}
    )
    stem = root / outputs.CLAIMS
    tables.write(pd.DataFrame({"claim": [name]}), stem)
    found = jobs_behind(here, f"{outputs.CLAIMS}.csv", name)
    assert "lora_qkv" in {job.cell.method_name for job in found}
    assert not [job.name for job in found if job.cell.variant]


# Texts, exports, page -----------------------------------------------------------------------------


def test_the_page_names_each_run_by_its_variant(plan: Plan, root: Path) -> None:
    found = records.read_results(plan, root)
    kept = page_runs.collected(found, dict(outputs.labels(plan)))["runs"]
    cell = next(c for c in plan.cells("train") if c.variant == "query" and c.seed == 1)
    run = kept[provenance.digest(plan.request("train", cell))]
    # What it changes is too long for a label, so its name stands there.
    label = "LoRA (q, k, v) with query"
    assert (run["name"], run["cell"]["method"]) == (f"{label} r=4, seed 1", "lora_qkv@query")


def test_the_artifact_lists_each_variant(plan: Plan) -> None:
    methods = text_outputs.artifact_request(plan)["methods"]
    assert set(methods) == set(ACCURACIES)
    assert methods["full@short"] == {**methods["full"], "label": "Full AdamW (epochs 1)"}


def test_system_c_has_a_folder_for_each_variant(plan: Plan, root: Path, tmp_path: Path) -> None:
    runs = tidy.collect(planted(plan, root, "train"))
    system_c.write(tmp_path, runs, root / plan.results)
    assert len(list(tmp_path.iterdir())) == len(runs) == 10
    folder = tmp_path / "distilbert-sst2-lora_qkv@query-r4-seed0"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["run_id"], summary["method"]) == (folder.name, "lora_qkv@query")
    assert (summary["lr"], summary["eval_accuracy"]) == (1e-3, 0.7)


def test_system_a_has_a_folder_for_each_variant(plan: Plan, root: Path, tmp_path: Path) -> None:
    memory = tidy.collect(planted(plan, root, "memory"))
    system_a.write(tmp_path, {"memory": memory}, {})
    file = "sst2/optimizer_memory_comparison.csv"
    sizes = {}
    for method in ("lora_qkv", "lora_qkv@query"):
        frame = pd.read_csv(tmp_path / "distilbert" / method / file)
        sizes[method] = dict(zip(frame["optimizer"], frame["memory_bytes"], strict=True))
    assert sizes["lora_qkv"] == {"Adam": 800, "lora_qkv": 80}
    assert sizes["lora_qkv@query"] == {"Adam": 800, "lora_qkv@query": 40}
