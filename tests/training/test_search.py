"""Runs that belong to a search: trials, and the runs that use the settings found."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.prepared import prepare, reset_accelerate
from helpers.repository import ROOT
from helpers.searched import GRID, STUDY, planned, write_search
from helpers.stored import finish
from rankwise.analysis import tidy
from rankwise.core import store
from rankwise.study import jobs, search_choice
from rankwise.study.plan import Plan
from rankwise.training import run as training


def reported(plan: Plan) -> Path:
    """The file of the reported split, relative to the project."""
    digest = plan.input_digest("dataset", "generated_reviews")
    place = store.input_place("dataset", "generated_reviews", digest)
    return (store.DEFAULT / place).with_name("validation.arrow")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder with the inputs, and the plan. The reported split lies elsewhere."""
    root, plan = tmp_path_factory.mktemp("inputs"), planned(methods=["full", "lora"], ranks=[2])
    rows = {"train": 300, "validation": 100}
    prepare(plan, root, corpus_rows=600, review_rows=rows, selection_rows=100, updates=2)
    (root / reported(plan)).rename(root / "validation.arrow")
    return root, plan


@pytest.fixture
def run(
    prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, dict], dict]:
    """Run a request of a kind (`train` or `trial`) in the folder with the inputs."""
    monkeypatch.chdir(prepared[0])

    def start(kind: str, request: dict) -> dict:
        reset_accelerate()
        return getattr(training, kind)(request)

    return start


def test_a_trial_does_not_read_the_reported_split(
    prepared: tuple[Path, Plan], run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metrics are those of the best state on the selection split. It keeps no examples."""
    plan = prepared[1]
    request = plan.request("trial", plan.cells("trial")[0])
    found = run("trial", request)
    losses = [row["selection_loss_nats"] for row in found["history"]]
    assert found["split"] == "selection"
    assert found["metrics"]["updates"] == 3
    assert found["metrics"]["eval_loss_nats"] == min(losses)
    assert "examples" not in found

    reporting = copy.deepcopy(request)
    reporting["dataset"]["report_split"] = "validation"
    # A job that finds inputs damaged sets them aside, so it gets a copy.
    monkeypatch.chdir(shutil.copytree(prepared[0], tmp_path / "copy"))
    with pytest.raises(FileNotFoundError, match=r"validation\.arrow"):
        run("train", reporting)


@pytest.fixture
def finished_search(prepared: tuple[Path, Plan], run) -> dict[float, list[float]]:
    """Run all trials of LoRA and choose; the losses of each learning rate that was tried."""
    root, plan = prepared
    curve = next(cell.curve for cell in plan.cells("train") if cell.method == "lora")
    losses = {}
    for job in jobs.cell_jobs(plan, "trial"):
        if job.cell.curve == curve:
            found = run("trial", job.request)
            finish(root, job, **found)
            rate = job.request["trial"]["learning_rate"]
            losses.setdefault(rate, []).append(found["metrics"]["eval_loss_nats"])
    (choice,) = [job for job in jobs.choice_jobs(plan) if job.cell == curve]
    finish(root, choice, **search_choice.choose(choice.request))
    return losses


@pytest.fixture
def reported_split(prepared: tuple[Path, Plan]):
    """The reported split is where runs look for it, during one test."""
    root, plan = prepared
    (root / "validation.arrow").rename(root / reported(plan))
    yield
    (root / reported(plan)).rename(root / "validation.arrow")


def test_a_run_after_a_search_uses_the_settings_found(
    prepared: tuple[Path, Plan], run, finished_search, reported_split
) -> None:
    """It equals, to the bit, a run with these settings written out. Result and table name them."""
    root, plan = prepared
    cell = next(cell for cell in plan.cells("train") if cell.method == "lora")
    request = plan.request("train", cell)
    found = run("train", request)
    best_rate = min(finished_search, key=lambda rate: sum(finished_search[rate]))
    assert found["split"] == "validation"
    assert found["selected"]["learning_rate"] == best_rate

    grid = {name: value for name, value in GRID.items() if name != "search"}
    grid["override"] = {"lora": {"learning_rate": best_rate}}
    written_out = Plan({**STUDY, "train": [grid]}, ROOT)
    written_out.library = plan.library
    expected = run("train", written_out.request("train", cell))
    assert json.dumps([found["metrics"], found["history"]]) == json.dumps(
        [expected["metrics"], expected["history"]]
    )

    (job,) = [job for job in jobs.cell_jobs(plan, "train") if job.cell == cell]
    row = tidy.collect([tidy.Planned(finish(root, job, **found))]).iloc[0]
    assert row["learning_rate"] == best_rate


def outcome_where_lora_fails(method: str, rate: float, seed: int) -> float | str:
    if method != "lora":
        return 1.0
    return "out_of_memory" if rate == 1e-2 else "diverged"


def test_runs_after_a_failed_search_have_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan, _ = write_search(outcome_where_lora_fails)
    cells = [cell for cell in plan.cells("train") if cell.method == "lora"]
    assert cells
    for cell in cells:
        run_result = training.train(plan.request("train", cell))
        assert run_result["status"] == "diverged"
        assert run_result["reason"].startswith(
            "no trial of the search ended well: 4 diverged, 2 out of memory; the first: because of"
        )
