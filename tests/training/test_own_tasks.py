"""The example of a task in docs, in a project of its own: it trains, and its file decides what reruns."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from helpers.own_files import forget
from helpers.prepared import prepare, reset_accelerate
from helpers.repository import ROOT
from rankwise.core import tasks
from rankwise.core.config import ConfigError
from rankwise.study.plan import Plan
from rankwise.training import run as training

STUDY = {
    "name": "own",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 4, "batch_size": 8},
    "train": [{"models": ["tiny"], "datasets": ["grades"], "methods": ["full"], "seeds": [0]}],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example and a dataset for it; the test runs in it."""
    shutil.copytree(
        ROOT / "docs/examples/tasks",
        tmp_path / "tasks",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (tmp_path / "config").mkdir()
    for split, size in (("train", 40), ("test", 12)):
        rows = [{"text": f"good film number {n} {split}", "label": n % 5 / 4} for n in range(size)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {
        "task": "graded", "files": {"folder": str(tmp_path), "format": "jsonl"}, "report_split": "test",
        "splits": {split: {"path": f"{split}.jsonl"} for split in ("train", "test")}, "text": "text",
        "label": "label", "max_length_tokens": 16, "selection_rows": 8,
        "max_unknown_fraction": 0.7,  # the corpus of `tiny` has no digits
    }  # fmt: skip
    (tmp_path / "config/datasets.yaml").write_text(yaml.safe_dump({"grades": entry}))
    package = importlib.import_module("rankwise.models.tasks")
    monkeypatch.setattr(package, "__path__", list(package.__path__))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("rankwise.models.tasks.graded", None)


def test_the_example_trains_and_its_file_is_in_the_request(project: Path) -> None:
    plan = Plan(STUDY, project)
    prepare(plan, project, corpus_rows=600, updates=2)
    request = plan.request("train", plan.cells("train")[0])
    assert "rankwise.models.tasks.graded" in request["code"]
    reset_accelerate()
    result = training.train(request)
    label, predicted = (np.array(result["examples"][name]) for name in ("label", "predicted"))
    assert label.tolist() == pytest.approx([n % 5 / 4 for n in range(12)])
    assert ((predicted >= 0) & (predicted <= 1)).all()
    assert result["metrics"]["mean_squared_error"] == pytest.approx(
        ((label - predicted) ** 2).mean()
    )
    assert "spearman_correlation" not in result["metrics"]


def test_an_edit_of_the_task_is_another_request(project: Path) -> None:
    cell = Plan(STUDY, project).cells("train")[0]
    before = Plan(STUDY, project).cell_digest("train", cell)
    file = project / "tasks/graded.py"
    file.write_text(file.read_text().replace("clamp(0, 1)", "clamp(0, 2)"))
    forget()
    assert Plan(STUDY, project).cell_digest("train", cell) != before


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            'LABELS = "number"',
            'LABELS = "words"',
            "tasks/graded.py: LABELS: got 'words', allowed: one of none, class",
        ),
        (
            'METRICS = ("pearson_correlation",',
            'METRICS = ("pearson",',
            "tasks/graded.py: METRICS: got",
        ),
        (
            "def scores(",
            "def score(",
            "tasks/graded.py: scores: got 'nothing', allowed: a task has encode, Collate",
        ),
        ("NEW_HEAD = True", "", "tasks/graded.py: NEW_HEAD: got 'nothing', allowed: True or False"),
        (
            "def scores(",
            "def scores(:",
            "tasks/graded.py: line 17: got 'invalid syntax', allowed: Python",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(
    project: Path, old: str, new: str, sentence: str
) -> None:
    file = project / "tasks/graded.py"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError) as error:
        Plan(STUDY, project)
    assert sentence in str(error.value)


def test_the_head_of_a_classification_serves_tasks_with_its_class(project: Path) -> None:
    entry = {"head": {"classification": ["classifier"], "language_modelling": ["lm_head"]}}
    assert tasks.head(entry, "graded") == tasks.head(entry, "regression") == ["classifier"]
    assert tasks.head(entry, "token_classification") == []


def test_a_task_of_one_project_is_none_of_another(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tasks.facts("graded").labels == tasks.NUMBER
    (project / "other").mkdir()
    monkeypatch.chdir(project / "other")
    with pytest.raises(KeyError):
        tasks.facts("graded")
