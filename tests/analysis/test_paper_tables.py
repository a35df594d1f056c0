"""The rules of the paper's tables, run by the real workflow on planted results."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from helpers.repository import ROOT, run_snakemake
from helpers.stored import finish
from rankwise.analysis import tables
from rankwise.checks import preflight
from rankwise.core.config import ConfigError
from rankwise.study import jobs
from rankwise.study.plan import Plan

FILE = "config/mini.yaml"
STUDY = {
    "name": "mini", "question": "Which?", "device": "cpu", "equivalence": {"accuracy_fraction": 0.2},
    "train": [{"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora", "rsvd"], "ranks": [2], "seeds": [0, 1, 2, 3]}],
    "profile": [{"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora"], "ranks": [2], "measurements": ["memory"]}],
}  # fmt: skip
EXAMPLES = 2000


def plant(root: Path, plan: Plan) -> None:
    """Write results that answer the plan's requests, after the inputs they read: full and lora equal, rsvd worse."""
    for job in jobs.input_jobs(plan):
        finish(root, job)
    chance = np.random.default_rng(10)
    hard = chance.random(EXAMPLES)
    for job in jobs.cell_jobs(plan, "train"):
        accuracy = 0.5 if job.cell.method == "rsvd" else 0.9
        right = (hard < accuracy) ^ (chance.random(EXAMPLES) < 0.01)
        found = {
            "metrics": {
                "accuracy_fraction": float(right.mean()),
                "updates": 8,
                "trainable_parameters": 10,
            },
            "examples": {
                "correct_fraction": right.astype(float).tolist(),
                "loss_nats": [1.0] * EXAMPLES,
                "predictions": [1] * EXAMPLES,
            },
            "split": "validation",
        }
        finish(root, job, **found)
    for job in jobs.cell_jobs(plan, "memory"):
        names = ("weights_bytes", "gradients_bytes", "optimizer_state_bytes")
        found = {"metrics": dict.fromkeys(names, 100 + job.cell.rank)}
        finish(root, job, **found)


@pytest.mark.slow
def test_the_rules_write_every_table_and_have_nothing_to_do_twice(clone: Path) -> None:
    (clone / FILE).write_text(yaml.safe_dump(STUDY))
    plant(clone, Plan(STUDY, clone, FILE))
    names = ("estimates", "comparisons", "summary", "fronts", "views")
    endings = ("csv", "md", "tex", "parquet")
    files = [f"results/mini/tables/{name}.{end}" for name in names for end in endings]
    done = run_snakemake(clone, *files, "--configfile", FILE, "--cores", "2")
    assert done.returncode == 0, done.stderr[-4000:]
    assert all((clone / file).stat().st_size for file in files)
    verdicts = tables.read(clone / "results/mini/tables/comparisons.csv")["verdict"]
    assert list(verdicts) == ["tied", "a better", "a better"]
    again = run_snakemake(clone, *files, "--configfile", FILE, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize("target", ["tables/estimates.csv", "tables/views.md", "figures/loss.png"])
def test_a_table_of_runs_that_a_study_does_not_have_is_refused(target: str) -> None:
    plan = Plan({**STUDY, "train": []}, ROOT, FILE)
    with pytest.raises(ConfigError, match="none of train"):
        preflight.check_targets([f"results/mini/{target}"], plan)
