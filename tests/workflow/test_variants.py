"""Variants in the real workflow: one study, two learning rates and two schedules of one method."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from helpers.repository import copy_repository, edit, run_snakemake

FILE = "config/varied.yaml"
YAML = """\
name: varied
question: Which setting holds LoRA back?
device: cpu
schedule: {updates: 4, batch_size: 8, eval_batch_size: 64}
train:
  - models: [tiny]
    datasets: [generated_reviews]
    methods: [full, lora]
    ranks: [2]
    seeds: [0, 1]
    variants:
      fast: {override: {lora: {options: {rslora: true}, learning_rate: 1.0e-2}}}
      short: {schedule: {updates: 2}}
profile:
  - {models: [tiny], datasets: [generated_reviews], methods: [full, lora], ranks: [2], measurements: [memory]}
"""
LABELS = ("LoRA", "LoRA (learning rate 0.01, rslora)", "LoRA (updates 2)")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copy_repository(tmp_path_factory.mktemp("varied") / "clone")
    (root / FILE).write_text(YAML)
    done = run_snakemake(root, "--configfile", FILE, "--cores", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def only(root: Path, name: str) -> Path:
    """The one file of this name below the results."""
    (found,) = (root / "results").rglob(name)
    return found


def jobs_to_run(root: Path) -> dict[str, int]:
    """Rule -> how many of its jobs a dry run would run."""
    done = run_snakemake(root, "-n", "--configfile", FILE)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)
    return {rule: int(count) for rule, count in counts}


def test_each_variant_was_trained_with_its_own_settings(built: Path) -> None:
    runs = pd.read_csv(only(built, "runs.csv"))
    settings = runs[["method", "seed", "learning_rate", "updates", "options_rslora"]]
    rows = settings[settings["method"].str.startswith("lora") & (settings["seed"] == 0)]
    assert rows.set_index("method").drop(columns="seed").to_dict("index") == {
        "lora": {"learning_rate": 2e-4, "updates": 4, "options_rslora": False},
        "lora@fast": {"learning_rate": 1e-2, "updates": 4, "options_rslora": True},
        "lora@short": {"learning_rate": 2e-4, "updates": 2, "options_rslora": False},
    }
    assert len(runs) == runs["request_digest"].nunique() == 10


def test_the_summary_has_a_row_for_each_with_its_label_and_cost(built: Path) -> None:
    summary = pd.read_csv(only(built, "summary.csv")).set_index("method")
    assert set(summary.index) == {"Full AdamW", "Full AdamW (updates 2)", *LABELS}
    state = summary["optimizer_state_mib"]
    assert state["Full AdamW (updates 2)"] == state["Full AdamW"]
    assert state["LoRA (updates 2)"] == state["LoRA"]
    # rslora changes no shape, but the profile is of other options: nothing is said.
    assert pd.isna(state["LoRA (learning rate 0.01, rslora)"])


def test_the_page_and_the_figures_name_each_curve(built: Path) -> None:
    page = only(built, "report.html").read_text(encoding="utf-8")
    assert all(label in page or json.dumps(label)[1:-1] in page for label in LABELS)
    assert only(built, "metric_by_rank.png").stat().st_size > 0


def test_a_new_variant_trains_itself_alone(built: Path) -> None:
    assert jobs_to_run(built) == {}
    edit(built / FILE, "      short:", "      slow: {override: {lora: {learning_rate: 1.0e-5}}}\n      short:")  # fmt: skip
    try:
        jobs = jobs_to_run(built)
    finally:
        (built / FILE).write_text(YAML)
    assert jobs["train"] == 2  # one for each seed
    assert not {"memory", "pretrain_model", "prepare_dataset"} & set(jobs)
