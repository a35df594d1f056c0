"""The workflow used from elsewhere: as a module of another repository, and with --directory."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.repository import ROOT, run_snakemake
from helpers.stored import made

SNAKEFILE = f"""
configfile: "study.yaml"


module rankwise:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config


use rule * from rankwise
"""
METHOD = '''"""Trains the layer norms and the head."""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class NormsOnly(Method):
    """Trains every layer norm, and the new head."""

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Freeze everything else."""
        model.requires_grad_(False)
        for name, module in model.named_modules():
            if isinstance(module, nn.LayerNorm) or name in names["new_head"]:
                module.requires_grad_(True)
        return model
'''
STUDY = {
    "name": "mine",
    "question": "Do the layer norms suffice?",
    "device": "cpu",
    "train": [
        {
            "models": ["tiny"],
            "datasets": ["generated_reviews"],
            "methods": ["full", "norms_only"],
            "ranks": [0],
            "seeds": [0],
            "schedule": {
                "batch_size": 8,
                "updates": 4,
                "eval_batch_size": 200,
                "evaluate_every_updates": 4,
            },
        }
    ],
    "profile": [
        {
            "models": ["distilbert"],
            "datasets": ["sst2"],
            "methods": ["norms_only"],
            "measurements": ["memory"],
        }
    ],
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one's own: a Snakefile, a study, a method and its entry."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (folder / "methods").mkdir()
    (folder / "methods/norms_only.py").write_text(METHOD)
    (folder / "config").mkdir()
    (folder / "config/methods.yaml").write_text(
        "norms_only: {module: norms_only, learning_rate: 1.0e-3, label: Norms only}\n"
    )
    return folder


def jobs_to_run(done) -> dict[str, int]:
    """Rule -> number of jobs, from the table that a dry run prints."""
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    table = text[text.rindex("Job stats:") :].splitlines()[3:]
    counts = {}
    for line in table:
        words = line.split()
        if len(words) != 2 or words[0] == "total":
            break
        counts[words[0]] = int(words[1])
    return counts


def test_a_module_plans_the_users_study_and_method(repository: Path) -> None:
    counts = jobs_to_run(run_snakemake(repository, "--cores", "1", "-n"))
    assert counts["train"] == 2
    assert counts["memory"] == 1


def test_a_mistake_in_the_users_study_is_one_sentence(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "copy", ignore=shutil.ignore_patterns(".snakemake"))
    study = {**STUDY, "train": [{**STUDY["train"][0], "methods": ["norms_onyl"]}]}
    (tmp_path / "copy/study.yaml").write_text(yaml.safe_dump(study))
    done = run_snakemake(tmp_path / "copy", "--cores", "1", "-n")
    assert done.returncode != 0
    assert "study.yaml: train.0.methods: got 'norms_onyl', allowed: " in done.stderr
    assert "(nearest: 'norms_only')" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_entry_may_not_take_a_shipped_name(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "copy", ignore=shutil.ignore_patterns(".snakemake"))
    (tmp_path / "copy/config/methods.yaml").write_text(
        "lora: {module: full, learning_rate: 1.0e-3}\n"
    )
    done = run_snakemake(tmp_path / "copy", "--cores", "1", "-n")
    assert "config/methods.yaml: lora: got " in done.stderr
    assert "another name, or `override` in the study" in done.stderr


def test_directory_puts_results_elsewhere(tmp_path: Path) -> None:
    target = "results/demo/profiles/distilbert/sst2/full/r0/memory.json"
    arguments = [target, "--cores", "1", "--directory", str(tmp_path), "-n"]
    counts = jobs_to_run(run_snakemake(ROOT, *arguments, "--configfile", "config/demo.yaml"))
    assert counts == {"memory": 1}


@pytest.mark.slow
def test_a_module_runs_and_has_nothing_to_do_afterwards(repository: Path) -> None:
    """And an edit of the user's own method reruns its jobs and no others."""
    done = run_snakemake(repository, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    path = "results/mine/runs/tiny/generated_reviews/norms_only/r0/seed0/train.json"
    result = json.loads(made(repository, path).read_text())
    assert result["status"] == "ok"
    assert "rankwise.methods.norms_only" in result["request"]["code"]
    assert (repository / "results/mine/report.html").is_file()
    assert jobs_to_run(run_snakemake(repository, "--cores", "1", "-n")) == {}

    method = repository / "methods/norms_only.py"
    method.write_text(
        method.read_text().replace("requires_grad_(True)", "requires_grad_(True) # ...")
    )
    assert jobs_to_run(run_snakemake(repository, "--cores", "1", "-n")) == {}
    method.write_text(method.read_text().replace("nn.LayerNorm", "(nn.LayerNorm, nn.Embedding)"))
    counts = jobs_to_run(run_snakemake(repository, "--cores", "1", "-n"))
    assert counts["train"] == 1
    assert counts["memory"] == 1


@pytest.mark.slow
def test_directory_runs_and_leaves_the_clone_alone(tmp_path: Path) -> None:
    target = "results/demo/figures/memory.png"
    arguments = [target, "--cores", "2", "--directory", str(tmp_path)]
    done = run_snakemake(ROOT, *arguments, "--configfile", "config/demo.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / target).is_file()
