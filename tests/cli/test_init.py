"""`rankwise init`: a repository of one's own, whose study plans."""

import re
from pathlib import Path

import pytest
import yaml

from helpers.repository import run_snakemake
from rankwise.cli import main
from rankwise.core.config import library
from rankwise.core.yaml_files import read_yaml
from rankwise.study.plan import read_plan


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "my_study"
    assert main.main(["init", str(folder)]) == 0
    return folder


def test_its_study_plans_and_its_entries_are_read(repository: Path) -> None:
    plan = read_plan(repository, "config/mine.yaml")
    assert {cell.method for cell in plan.cells("train")} == {"full", "head_only", "lora", "rsvd"}
    assert library(repository).keys() == {"methods", "models", "datasets", "claims", "evaluations"}
    for kind in ("methods", "models", "datasets"):
        assert read_yaml(repository / f"config/{kind}.yaml", kind) == {}


def test_its_files_say_what_they_are_for(repository: Path) -> None:
    for folder in ("methods", "optim"):
        assert "rankwise" in (repository / folder / "README.md").read_text().lower()
    ignored = (repository / ".gitignore").read_text().split()
    assert {"results/", "logs/", ".snakemake/"} <= set(ignored)
    assert "rankwise[workflow]" in (repository / "requirements.txt").read_text()


def test_its_ci_plans_every_study_and_tests_every_method(repository: Path) -> None:
    (workflow,) = (repository / ".github/workflows").iterdir()
    steps = yaml.safe_load(workflow.read_text())["jobs"]["plan"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    assert "rankwise plan --study" in commands
    assert "rankwise test method" in commands
    names = re.search(r'python -c "(.*)"\)', commands)[1]
    assert "config/methods.yaml" in names


@pytest.mark.slow
def test_snakemake_plans_it_with_its_profile(repository: Path) -> None:
    done = run_snakemake(repository, "-n")
    assert done.returncode == 0, done.stderr[-3000:]
    # full, head_only, lora and rsvd at one rank, three seeds each
    assert re.search(r"^train +12$", done.stdout + done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_a_study_that_is_named_has_nothing_of_the_repositorys_own(repository: Path) -> None:
    """Snakemake merges `--configfile` with the Snakefile's, which has `model` and `data`."""
    grid = {"methods": ["full"], "seeds": [0]}
    study = {"name": "other", "question": "?", "device": "cpu", "train": [grid]}
    (repository / "config/other.yaml").write_text(yaml.safe_dump(study))
    done = run_snakemake(repository, "-n", "--configfile", "config/other.yaml")
    assert done.returncode != 0
    assert "config/other.yaml: train.0.models: got 'nothing'" in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_nothing_is_written_where_something_is(tmp_path: Path, capsys, kind: str) -> None:
    target = tmp_path / "there"
    if kind == "folder":
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    else:
        target.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main.main(["init", str(target)]) == 1
    assert "allowed: a folder that is empty or not there" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
