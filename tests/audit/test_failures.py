"""Which cells have no result, why, and what is planned from the others."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.stored import finish
from rankwise.audit.failures import absent, say_kills
from rankwise.core import requests
from rankwise.core.store import Store
from rankwise.study import jobs, partial
from rankwise.study.jobs import PlannedJob
from rankwise.study.partial import PartialPlan
from rankwise.study.plan import Plan
from rankwise.study.settle import fetch

STUDY = {
    "name": "half",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 2, "batch_size": 8},
    "train": [
        {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora"], "ranks": [2], "seeds": [0, 1]},
    ],
    "profile": [
        {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full"], "ranks": [2], "measurements": ["memory", "flops"]},
    ],
}  # fmt: skip
PLACE = "tiny/generated_reviews"


def planned(root: Path, **changes: object) -> Plan:
    return Plan({**STUDY, **changes}, root, "config/half.yaml")


def job_of(plan: Plan, measurement: str, method: str = "full", seed: int | None = 0) -> PlannedJob:
    for job in jobs.result_jobs(plan):
        if job.kind == measurement and job.cell.method == method and job.cell.seed in (seed, None):
            return job
    raise AssertionError(measurement)


def log(plan: Plan, job: PlannedJob, text: str) -> None:
    file = plan.root / job.log
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"the title\n{text}\n")


def found(plan: Plan) -> dict:
    _, missing = fetch(plan)
    return absent(plan, missing)


def statuses(plan: Plan) -> dict[tuple, tuple]:
    return {
        (one["measurement"], one["cell"]["method"], one["cell"].get("seed")): (
            one["status"],
            one["reason"],
            one["log"],
        )
        for one in found(plan)["cells"]
    }


def test_a_cell_is_there_running_stopped_failed_or_not_run(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    finish(tmp_path, job_of(plan, "memory"), status="ok")
    failed, stopped = job_of(plan, "train", "full", 0), job_of(plan, "train", "full", 1)
    log(plan, failed, "rank: got 0, allowed: 1")
    log(plan, stopped, "ended by SIGTERM")
    running = job_of(plan, "train", "lora", 0)
    log(plan, running, "epoch 0")
    with Store(tmp_path).locked(running.digest):
        assert statuses(plan) == {
            ("train", "full", 0): ("failed", "rank: got 0, allowed: 1", failed.log),
            ("train", "full", 1): ("stopped", "ended by SIGTERM", stopped.log),
            ("train", "lora", 0): ("running", "", running.log),
            ("train", "lora", 1): ("not run", "", ""),
            ("flops", "full", None): ("not run", "", ""),
        }
    assert found(plan)["planned"] == {"train": 4, "flops": 1}


KILLED = """
import os, signal, sys, time
from rankwise.core import progress, requests
from pathlib import Path

with progress.reported(requests.read(Path(sys.argv[1]))):
    print("update 3 of 900", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_that_was_killed_with_all_others_is_said_to_be(tmp_path: Path) -> None:
    """Nobody was left to write to its log, so planning does, once."""
    plan = planned(tmp_path)
    job = job_of(plan, "train", "full", 0)
    log(plan, job, "at work")
    digest = requests.write(job.request, tmp_path)
    command = [sys.executable, "-c", KILLED, str(requests.file(digest))]
    with (tmp_path / job.log).open("a") as stream:
        subprocess.run(command, cwd=tmp_path, stderr=stream, check=False)
    for _ in range(2):
        say_kills(tmp_path)
    lines = (tmp_path / job.log).read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("ended by ")]
    assert lines[-1] == line
    assert "such as SIGKILL; peak of its resident memory: 0.0" in line
    assert statuses(plan)["train", "full", 0] == ("failed", line, job.log)


def test_runs_wait_for_an_input_that_failed(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    dataset = next(job for job in jobs.input_jobs(plan) if job.name == "generated_reviews")
    log(plan, dataset, "no rows")
    runs = [value for key, value in statuses(plan).items() if key[0] == "train"]
    assert runs == [("waiting", "dataset generated_reviews: no rows", dataset.log)] * 4


def test_runs_wait_for_a_trial_that_failed(tmp_path: Path) -> None:
    (grid,) = STUDY["train"]
    plan = planned(
        tmp_path, train=[{**grid, "search": {"learning_rates": [1e-3, 1e-2], "seeds": [5]}}]
    )
    for job in jobs.input_jobs(plan):
        finish(tmp_path, job)
    for job in jobs.cell_jobs(plan, "trial"):
        if job.cell.method == "full":
            finish(tmp_path, job, status="ok")
    failed = job_of(plan, "trial", "lora", 5)
    log(plan, failed, "out of range")
    assert statuses(plan)["train", "lora", 0] == (
        "waiting",
        f"{PLACE}, lora, rank 2, trial lr0.001, seed 5, learning rate 0.001: out of range",
        failed.log,
    )
    assert statuses(plan)["train", "full", 0] == ("not run", "", "")
    # No trial of lora is chosen, so no run of it can be planned from what is there.
    assert {cell.method for cell in PartialPlan(plan, found(plan)).cells("trial")} == {"full"}


# What is planned from what is there ---------------------------------------------------------------


@pytest.fixture
def half(tmp_path: Path) -> PartialPlan:
    """A study with one of four runs and the memory profile; the FLOPs are not there."""
    plan = planned(tmp_path)
    finish(tmp_path, job_of(plan, "memory"), status="ok")
    finish(tmp_path, job_of(plan, "train", "lora", 1), status="diverged")
    log(plan, job_of(plan, "train", "full", 0), "a reason")
    return PartialPlan(plan, found(plan))


def test_documents_are_made_from_the_results_that_are_there(half: PartialPlan) -> None:
    by_path = {job.path: job for job in partial.document_jobs(half)}
    runs = by_path["results/half/tables/runs.csv"]
    assert list(runs.inputs) == [job_of(half.whole, "train", "lora", 1).path]
    assert [one["measurement"] for one in runs.request["absent"]["cells"]] == ["train"] * 3
    assert runs.request["absent"]["planned"] == {"train": 4}
    memory = by_path["results/half/tables/memory.csv"]
    assert "absent" not in memory.request
    whole = {job.path: job for job in jobs.document_jobs(half.whole)}
    assert memory.request == whole[memory.path].request
    page = by_path["results/half/report.html"]
    assert len(page.request["absent"]["cells"]) == 4


def test_documents_without_any_result_are_left_out_and_named(half: PartialPlan) -> None:
    assert partial.left_out(half) == [
        "results/half/tables/flops.csv",
        "results/half/figures/critical_difference.png",
        "results/half/figures/flops.png",
    ]


def test_requests_of_results_are_those_of_the_whole_study(half: PartialPlan) -> None:
    (job,) = jobs.cell_jobs(half, "train")
    assert job.digest == job_of(half.whole, "train", "lora", 1).digest
    assert (half.root / job.path).is_file()


def test_a_page_can_be_made_without_a_figure(half: PartialPlan) -> None:
    page = next(job for job in partial.document_jobs(half) if job.kind == jobs.PAGE)
    without = partial.without_figures(page, {"memory": "a reason"})
    assert set(page.inputs) - set(without.inputs) == {"results/half/figures/memory.svg"}
    assert set(page.request["figures"]) - set(without.request["figures"]) == {"memory"}
    assert without.request["reads"] == list(without.inputs)
    assert without.request["not_drawn"] == {"memory": "a reason"}


def test_sentences_name_and_count_what_is_absent(half: PartialPlan) -> None:
    assert partial.sentences(half.absent, {"train": {"diverged": 1}}) == [
        f"Partial: of 4 training runs, 1 failed ({PLACE} full seed 0), "
        f"2 not run ({PLACE} full seed 1; lora r2 seed 0), 1 diverged.",
        f"Partial: of 1 flops profiles, 1 not run ({PLACE} full).",
    ]


def test_a_sentence_names_a_few_curves_and_counts_the_others() -> None:
    cells = [partial.Cell("m", "d", f"method{number}", 0, 0) for number in range(9)]
    assert partial.names(cells).endswith("method5 seed 0; and 3 more")
