"""Why jobs would run again and what they cost, from results by hand.

Which jobs run is Snakemake's own word; tests/workflow/test_rerun.py asks the real one.
"""

from pathlib import Path

import pytest

from helpers.repository import ROOT
from helpers.stored import finish
from rankwise.audit import rerun_plan
from rankwise.audit.request_differences import differences
from rankwise.cli.plan_text import text
from rankwise.core.store import Store
from rankwise.study.jobs import PlannedJob, cell_jobs
from rankwise.study.plan import Plan

GRID = {
    "models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora"], "ranks": [2, 4], "seeds": [0, 1],
}  # fmt: skip
STUDY = {"name": "s", "question": "?", "device": "cpu", "disk_gib": 3, "schedule": {"updates": 9}}
HOUR = 3600.0


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    for name in ("config", "envs", "workflow_scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    return Plan({**STUDY, "train": [GRID]}, tmp_path, "config/s.yaml")


def run_of(plan: Plan, method: str, rank: int, seed: int) -> PlannedJob:
    (job,) = [
        job
        for job in cell_jobs(plan, "train")
        if (job.cell.method, job.cell.rank, job.cell.seed) == (method, rank, seed)
    ]
    return job


def write(plan: Plan, job: PlannedJob, hours: float) -> None:
    finish(plan.root, job, {"job_time_s": hours * HOUR})


def hours(plan: Plan, *pending: PlannedJob) -> tuple[float, int]:
    """Hours of jobs, and the number of jobs of unknown time."""
    cost = rerun_plan.cost(plan, list(pending), rerun_plan.study_jobs(plan).values())
    return cost["hours"], cost["unknown"]


def test_a_job_costs_what_it_did_or_its_curve_or_its_kind(plan: Plan) -> None:
    assert hours(plan, run_of(plan, "lora", 2, 0)) == (0, 1)
    write(plan, run_of(plan, "full", 0, 0), 1)
    write(plan, run_of(plan, "lora", 4, 0), 4)
    write(plan, run_of(plan, "lora", 4, 1), 6)
    assert hours(plan, run_of(plan, "lora", 4, 0)) == (4, 0)  # itself, not the median of its curve
    assert hours(plan, run_of(plan, "full", 0, 1)) == (1, 0)  # the other seed
    assert hours(plan, run_of(plan, "lora", 2, 0)) == (4, 0)  # the median of all three
    both = run_of(plan, "lora", 4, 0), run_of(plan, "full", 0, 1)
    assert hours(plan, *both) == (5, 0)


def test_a_gpu_hour_is_of_one_gpu(plan: Plan) -> None:
    """Two hours on each of four GPUs, and an hour on one."""
    study = {**STUDY, "device": "cuda", "train": [{**GRID, "methods": ["full"], "seeds": [0]}]}
    study["train"].append({**study["train"][0], "methods": ["lora"], "ranks": [2]})
    study["train"][0]["schedule"] = {"processes": 4}
    on_gpus = Plan(study, plan.root, "config/s.yaml")
    four, one = run_of(on_gpus, "full", 0, 0), run_of(on_gpus, "lora", 2, 0)
    write(on_gpus, four, 2)
    write(on_gpus, one, 1)
    cost = rerun_plan.cost(on_gpus, [four, one], rerun_plan.study_jobs(on_gpus).values())
    assert (cost["hours"], cost["gpu_hours"]) == (3, 4 * 2 + 1)


def test_an_interrupted_write_is_no_result(plan: Plan) -> None:
    job = run_of(plan, "full", 0, 0)
    write(plan, job, 1)
    file = plan.root / job.path
    file.write_text(file.read_text()[:-9])
    assert rerun_plan.of_same_cell(job, Store(plan.root)) == []
    assert hours(plan, job) == (0, 1)


REQUEST = {
    "code": {"rankwise.methods.lora": "a", "rankwise.optim.adamw": "b"},
    "environment": {"lock": "envs/cpu.lock", "digest": "c"},
    "inputs": {"dataset": "d", "model": "e"},
    "schedule": {"updates": 3, "milestones": [1, 2]},
}


@pytest.mark.parametrize(("change", "expected"), [
    ({}, []),
    ({"code": {"rankwise.methods.lora": "x", "rankwise.optim.adamw": "b"}}, ["src/rankwise/methods/lora.py changed"]),
    ({"code": {"rankwise.methods.lora": "a"}}, ["src/rankwise/optim/adamw.py changed"]),
    ({"environment": {"lock": "envs/cpu.lock", "digest": "x"}}, ["envs/cpu.lock changed"]),
    ({"inputs": {"dataset": "x", "model": "e"}}, ["dataset prepared anew"]),
    ({"inputs": {"dataset": "d", "model": "e", "search": "f"}}, ["search prepared anew"]),
    ({"schedule": {"updates": 4, "milestones": [1, 2]}}, ["schedule.updates: 3 -> 4"]),
    ({"schedule": {"milestones": [1]}}, ["schedule.milestones: [1, 2] -> [1]", "schedule.updates: 3 -> nothing"]),
    ({"device": "cuda"}, ["device: nothing -> cuda"]),
])  # fmt: skip
def test_a_changed_request_is_explained(change: dict, expected: list[str]) -> None:
    assert differences(REQUEST, {**REQUEST, **change}) == expected


def test_the_text_counts_jobs_by_reason() -> None:
    jobs = [
        {"job": "train", "why": ["not there yet"]},
        {"job": "train", "why": ["envs/cpu.lock changed", "resumes from its checkpoint"]},
        {"job": "table", "why": ["made from what runs"]},
    ]
    cost = {"hours": 2.5, "gpu_hours": 0.0, "peak_bytes": 3 * 2**30, "disk_gib": 7, "unknown": 1}
    found = {
        "study": "config/s.yaml",
        "planned": 9,
        "jobs": jobs,
        "cost": cost,
        "unkept": [],
        "leftovers": [],
    }
    assert text(found).splitlines() == [
        "config/s.yaml: 3 jobs would run: 2 train, 1 table",
        "  not there yet: 1 train",
        "  envs/cpu.lock changed: 1 train",
        "  resumes from its checkpoint: 1 train",
        "  made from what runs: 1 table",
        "cost: about 2 hours 30 minutes; 1 job has no time yet (`snakemake predictions` predicts "
        "trainings); predicted peak 3 GiB; disk 7 GiB",
    ]
    cost |= {"hours": 800 / 3600, "gpu_hours": 300 / 3600, "unknown": 124}
    assert text(found).splitlines()[-1] == (
        "cost: about 13 minutes, 5 minutes of GPU time; 124 jobs have no time yet "
        "(`snakemake predictions` predicts trainings); predicted peak 3 GiB; disk 7 GiB"
    )
    cost |= {"hours": 1.0, "gpu_hours": 4.0, "unknown": 0}  # an hour on four GPUs
    assert text(found).splitlines()[-1].startswith("cost: about 1 hour, 4 hours of GPU time; ")
    cost |= {"hours": 0.0, "gpu_hours": 0.0, "unknown": 124}
    assert text(found).splitlines()[-1].startswith("cost: not known: no such job has run here")
    cost |= {"unknown": 0}
    assert text(found).splitlines()[-1].startswith("cost: no training and no measurement; ")
    assert text({**found, "jobs": []}) == (
        "config/s.yaml: nothing to be done; all 9 results are as planned"
    )
    left = [f"results/s/figures/{name}.png" for name in "abcde"]
    assert text({**found, "jobs": [], "leftovers": left}).splitlines()[-1] == (
        "no longer planned: 5 files (results/s/figures/a.png, results/s/figures/b.png, "
        "results/s/figures/c.png and 2 more); `rankwise clean --study config/s.yaml` removes them"
    )
