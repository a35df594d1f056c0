"""Trials and the runs that follow them, trained: no reported split for the first, the settings found for the others."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.prepared import prepare
from helpers.repository import ROOT
from helpers.searched import GRID, STUDY, planned
from rankwise.core import result
from rankwise.study import search_choice
from rankwise.study.plan import Plan


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """Inputs as the workflow lays them, without the reported split; the model is pre-trained for two updates."""
    root, plan = tmp_path_factory.mktemp("inputs"), planned(methods=["full", "lora"], ranks=[2])
    prepare(plan, root, corpus=600, rows={"train": 600, "validation": 100}, updates=2)
    (root / "results/inputs/datasets/generated_reviews/validation.jsonl").rename(
        root / "validation.jsonl"
    )
    return root, plan


@pytest.fixture
def run(
    prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, dict], dict]:
    """Train with a request, where the inputs lie."""
    from accelerate.state import AcceleratorState

    from rankwise.training import run as training

    monkeypatch.chdir(prepared[0])

    def train(kind: str, request: dict) -> dict:
        AcceleratorState._reset_state(reset_partial_state=True)
        return getattr(training, kind)(request)

    return train


def test_a_trial_needs_no_reported_split(prepared: tuple[Path, Plan], run) -> None:
    """It lies elsewhere. A trial's metrics are those of the selection slice at its best state; no example is scored."""
    plan = prepared[1]
    found = run("trial", plan.request("trial", plan.cells("trial")[0]))
    assert found["split"] == "selection"
    assert found["metrics"]["updates"] == 3
    assert found["metrics"]["eval_loss_nats"] == min(
        row["selection_loss_nats"] for row in found["history"]
    )
    assert "examples" not in found
    with pytest.raises(FileNotFoundError, match=r"validation\.jsonl"):
        run("train", {**(request := copy.deepcopy(plan.request("trial", plan.cells("trial")[0]))),
                      "dataset": {**request["dataset"], "report_split": "validation"}})  # fmt: skip


def test_a_run_after_a_search_is_the_run_with_those_settings(
    prepared: tuple[Path, Plan], run
) -> None:
    """To the bit; the result and its row in the table say which they were."""
    from rankwise.analysis import tidy

    root, plan = prepared
    home = root / "results/inputs/datasets/generated_reviews/validation.jsonl"
    cell = next(c for c in plan.cells("train") if c.method == "lora")
    choice, losses = plan.choice(cell.curve), {}
    for tried in (c for c in plan.cells("trial") if c.curve == cell.curve):
        request = plan.request("trial", tried)
        found = run("trial", request)
        result.write(root / plan.path("trial", tried), request, found, {})
        losses.setdefault(request["trial"]["learning_rate"], []).append(
            found["metrics"]["eval_loss_nats"]
        )
    result.write(
        root / f"results/search/{cell.curve.folder}/selected.json",
        choice,
        search_choice.choose(choice),
        {},
    )
    (root / "validation.jsonl").rename(home)
    try:
        found = run("train", plan.request("train", cell))
        plain = {name: value for name, value in GRID.items() if name != "search"}
        rate = {"lora": {"learning_rate": found["selected"]["learning_rate"]}}
        alone = Plan({**STUDY, "train": [{**plain, "override": rate}]}, ROOT)
        alone.library = plan.library
        same = run("train", alone.request("train", cell))
    finally:
        home.rename(root / "validation.jsonl")
    assert json.dumps([found["metrics"], found["history"]]) == json.dumps(
        [same["metrics"], same["history"]]
    )
    assert found["split"] == "validation"
    assert found["selected"]["learning_rate"] == min(losses, key=lambda rate: sum(losses[rate]))
    path = root / plan.path("train", cell)
    result.write(path, plan.request("train", cell), found, {})
    row = tidy.collect([(path, plan.request("train", cell))]).iloc[0]
    assert row["learning_rate"] == found["selected"]["learning_rate"]
