"""Verdicts on published numbers, from results that are measured here, by the script and the workflow."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from helpers.claims import CELL, LIBRARY, REGISTRY, decisive, plan_of
from helpers.repository import ROOT, copy_repository, edit, run_snakemake
from rankwise.analysis import tables, tidy
from rankwise.analysis.claim_verdicts import holds_as_corrected, judge
from rankwise.core import result
from rankwise.study import jobs
from rankwise.study.claims import expand
from rankwise.study.plan import Cell

# The workflow's test below looks whether a table of real runs has them.
RUN_COLUMNS = {"accuracy_fraction", "learning_rate", "effective_batch_size", "updates"}
# Those of evaluations that claims use; tests/analysis/test_evaluations.py collects a table with them. A claim also
# names the settings of the run whose weights were asked.
EVALUATION_COLUMNS = {"evaluation", "metric", "score_fraction"} | RUN_COLUMNS
DISTILBERT, BERT = ("distilbert", "sst2"), ("bert_base", "sst2")
LLAMA = ("llama_2_7b", "wikitext2")
MEASURED = {
    "memory": [
        Cell(*DISTILBERT, "lora_alpha16", 8),
        Cell(*DISTILBERT, "hira_as_lora", 0),
        Cell(*DISTILBERT, "qlora_single", 8),
        Cell(*LLAMA, "vlorp_published", 0),
        Cell(*LLAMA, "vlorp", 16),
        Cell(*LLAMA, "galore", 128),
        Cell(*BERT, "lora_alpha16", 8),
        Cell(*BERT, "qlora", 8),
    ],
    "flops": [
        Cell(*DISTILBERT, "rsvd_fraction", 1),
        Cell(*DISTILBERT, "rsvd_fraction", 10),  # the corrected reading of a mislabelled row
        Cell("distilbert", "sst2_files", "frozen", 0),
    ],
    "ledger": [Cell(*DISTILBERT, "rsvd", 16), Cell(*DISTILBERT, "rsvd", 16, variant="accumulated")],
}
EXPECTED = {
    "b_trainable_lora": "reproduced", "b_trainable_share_lora": "reproduced", "b_model_size_lora": "reproduced",
    "b_model_size_qlora": "reproduced", "b_trainable_hira": "not reproduced", "c_parameters_lora_r8": "reproduced",
    "c_trainable_qlora_r8": "not reproduced", "b_trainable_lora_bert": "reproduced",
    "d_state_formula": "reproduced", "d_state_of_budget_r16": "reproduced", "d_gradients_formula": "reproduced",
    "galore_state_formula_r128": "reproduced", "a_forward_flops": "reproduced", "a_step_flops_rsvd_fraction_r1": "reproduced",
    "a_step_flops_mislabelled_r1": "not reproduced", "a_activations_rsvd_r16": "reproduced",
    "a_optimizer_basis_rsvd_r16": "reproduced", "a_optimizer_moment_rsvd_r16": "reproduced",
    "a_peak_allocated_sst2_rsvd_r16": "reproduced",
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, pd.DataFrame]]:
    """A folder of results with the tables of MEASURED, and these tables."""
    from rankwise.measure.flops.count import flops
    from rankwise.measure.memory.ledger import ledger
    from rankwise.measure.memory.persistent import memory

    folder, plan = tmp_path_factory.mktemp("results"), plan_of("config/shapes.yaml")
    measures = {"memory": memory, "flops": flops, "ledger": ledger}
    frames = {}
    for kind, cells in MEASURED.items():
        planned = [
            tidy.Planned(folder / plan.path(kind, cell), cell.method_name if cell.variant else None)
            for cell in cells
        ]
        for (path, _), cell in zip(planned, cells, strict=True):
            request = plan.request(kind, cell)
            result.write(path, request, measures[kind](request), {})
        frames[kind] = tidy.collect(planned)
        if kind == "ledger":
            frames["state"] = tidy.listed(planned, "state")
    (folder / "tables").mkdir()
    for name, frame in frames.items():
        tables.write(frame, folder / "tables" / name)
    return folder, frames


def test_every_column_is_one_that_its_table_has(measured) -> None:
    columns = {name: {*frame} for name, frame in measured[1].items()}
    columns |= {"runs": RUN_COLUMNS, "evaluations": EVALUATION_COLUMNS}
    for name, claim in decisive().items():
        wanted = {*claim["column"], *claim["settings"]}
        if "column" in claim.get("against", {}):
            wanted.add(claim["against"]["column"])
        assert wanted <= columns[claim["table"]], name


def test_the_script_writes_the_verdicts_on_real_results(measured) -> None:
    folder, frames = measured
    request = {**jobs.document(plan_of("config/shapes.yaml"), "claims.csv").request}
    request |= {"tables": list(frames), "reads": []}
    script = str(ROOT / "workflow_scripts/claims.py")
    arguments = ["--request", json.dumps(request), "--output", str(folder / "claims.csv")]
    done = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = tables.read(folder / "claims.csv").set_index("claim")
    assert {name: found.loc[name, "verdict"] for name in EXPECTED} == EXPECTED
    corrected = set(found.index[holds_as_corrected(found)])
    assert corrected >= {
        "b_trainable_hira",
        "c_trainable_qlora_r8",
        "a_step_flops_mislabelled_r1",
    }
    assert found.loc["a_optimizer_memory_rsvd_r4", "verdict"] == "not yet run"


def test_a_wrong_published_number_does_not_hold(measured) -> None:
    families = copy.deepcopy(LIBRARY["claims"])
    for family in (
        "b_model_size",
        "d_state_formula",
        "a_step_flops_rsvd_fraction",
        "a_optimizer_basis_rsvd",
    ):
        falsify(families[family])
    verdicts = judge(expand(families), measured[1]).set_index("claim")["verdict"]
    falsified = {
        "b_model_size_lora",
        "d_state_formula",
        "a_step_flops_rsvd_fraction_r1",
        "a_optimizer_basis_rsvd_r16",
    }
    assert set(verdicts[list(falsified)]) == {"not reproduced"}
    others = {*EXPECTED} - falsified - {"b_model_size_qlora"}
    assert {name: verdicts[name] for name in others} == {name: EXPECTED[name] for name in others}


def falsify(family: dict) -> None:
    """Change every number of a family by more than its tolerance."""
    if "published" in family:
        family["published"] += 1
    values = family.get("values", {})
    for key, value in values.items():
        if isinstance(value, dict):
            values[key] = {**value, "published": value["published"] + 0.02}
        else:
            values[key] = value + 1


# The figure ---------------------------------------------------------------------------------------


def test_the_figure_has_a_strip_a_quantity_and_every_verdict_in_its_title(measured) -> None:
    from rankwise.report import claims_figure

    frame = judge(REGISTRY, measured[1])
    figure = claims_figure.draw(frame)
    title = figure.get_suptitle()
    assert title.startswith(f"{len(REGISTRY)} claims: ")
    for verdict, number in frame["verdict"].value_counts().items():
        assert f"{number} {verdict}" in title
    axes = figure.axes[0]
    strips = [label.get_text() for label in axes.get_yticklabels()]
    assert "D  Optimizer memory" in strips
    assert "A  FLOPs of a step, by rank fraction" in strips
    marked = [line for line in axes.get_lines() if line.get_marker() not in ("None", "")]
    assert sum(len(line.get_xdata()) for line in marked) == frame["ours"].notna().sum()


def test_every_verdict_has_a_colour_and_a_marker_of_its_own() -> None:
    from rankwise.report import claims_figure

    colours, markers = zip(*(look[:2] for look in claims_figure.LOOKS.values()), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(claims_figure.LOOKS)


def test_the_figure_of_nothing_decided() -> None:
    from rankwise.report import claims_figure

    figure = claims_figure.draw(judge(REGISTRY, {}))
    assert "not yet run" in figure.get_suptitle()
    assert "no claim is decided yet" in [text.get_text() for text in figure.axes[0].texts]


# By the workflow ----------------------------------------------------------------------------------

STUDY = """
name: small
question: Does it hold?
device: cpu
schedule: {updates: 2, batch_size: 8, eval_batch_size: 64}
train: [{models: [tiny], datasets: [generated_reviews], methods: [lora], ranks: [2], seeds: [0, 1]}]
profile: [{models: [tiny], datasets: [generated_reviews], methods: [lora], ranks: [2], measurements: [memory]}]
"""
SHARED = {"system": "A", "title": "t", "definition": "d", "unit": "u", "source": "s", "cell": CELL}
SMALL = {
    "trainable": {
        **SHARED,
        "table": "memory",
        "column": "trainable_parameters",
        "values": {"right": 5314, "wrong": 5315},
    },
    "updates": {
        **SHARED,
        "table": "runs",
        "column": "updates",
        "settings": {"effective_batch_size": 8},
        "published": 2,
    },
    "batch": {
        **SHARED,
        "table": "runs",
        "column": "updates",
        "settings": {"effective_batch_size": 16},
        "published": 2,
    },
    "accuracy": {**SHARED, "table": "runs", "column": "accuracy_fraction", "published": 2.0},
}


@pytest.mark.slow
def test_by_the_workflow(tmp_path: Path) -> None:
    root = copy_repository(tmp_path / "clone")
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    (root / "config/small.yaml").write_text(STUDY)
    values = {key: {"published": number} for key, number in SMALL["trainable"]["values"].items()}
    registry = {**SMALL, "trainable": {**SMALL["trainable"], "values": values}}
    (root / "config/claims.yaml").write_text(yaml.safe_dump(registry))
    settings = ("--cores", "2", "--configfile", "config/small.yaml")
    done = run_snakemake(root, "results/small/claims.csv", "results/small/claims.png", *settings)
    assert done.returncode == 0, done.stderr[-3000:]
    found = tables.read(root / "results/small/claims.csv").set_index("claim")
    assert {*tables.read(root / "results/small/tables/runs.csv")} >= RUN_COLUMNS
    assert found["verdict"].to_dict() == {
        "trainable_right": "reproduced",
        "trainable_wrong": "not reproduced",
        "updates": "reproduced",
        "batch": "not yet run",
        "accuracy": "not reproduced",
    }
    accuracy = found.loc["accuracy"]
    assert accuracy["low"] <= accuracy["ours"] <= accuracy["high"]
    assert found.loc["batch", "reason"] == "ours has effective_batch_size 8, the claim 16"
    for ending in ("md", "tex", "parquet", "svg"):
        assert (root / f"results/small/claims.{ending}").stat().st_size
    edit(root / "config/claims.yaml", "published: 5314", "published: 5313")
    again = run_snakemake(root, "results/small/claims.csv", *settings)
    assert again.returncode == 0, again.stderr[-3000:]
    verdicts = tables.read(root / "results/small/claims.csv").set_index("claim")["verdict"]
    assert verdicts["trainable_right"] == "not reproduced"
