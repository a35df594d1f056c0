"""Planning removes what killed processes have left, and nothing that is needed."""

from pathlib import Path

from helpers.stored import finish
from rankwise.core import paths, process_names
from rankwise.core.files import durable_write
from rankwise.study import jobs
from rankwise.study.plan import Plan
from rankwise.study.settle import settle
from rankwise.study.tidy import tidy

STUDY = {
    "name": "tidy",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 2, "batch_size": 8},
    "train": [
        {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora"], "ranks": [2], "seeds": [0]},
    ],
}  # fmt: skip


def test_parts_of_ended_processes_and_checkpoints_of_finished_runs_go(tmp_path: Path) -> None:
    plan = Plan(STUDY, tmp_path, "config/tidy.yaml")
    finished, unfinished = jobs.cell_jobs(plan, "train")
    finish(tmp_path, finished, status="ok")
    for digest in (finished.digest, unfinished.digest, "0123456789abcdef"):
        for file in (paths.checkpoint(digest), paths.measured_start(digest)):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
    ended = process_names.name(2**22 + 1)
    part = tmp_path / f"results/tidy/tables/.part-runs.csv-{ended}"
    part.parent.mkdir(parents=True)
    part.touch()
    store = tmp_path / f"results/store/runs/.part-{unfinished.digest}-{ended}/adapter"
    store.mkdir(parents=True)
    with durable_write(tmp_path / "results/tidy/tables/other.csv") as living:
        living.touch()
        removed = tidy(plan, settle(plan).missing)
        assert living.exists()
    expected = {part, store.parent}
    for file in (paths.checkpoint(finished.digest), paths.measured_start(finished.digest)):
        expected.add(tmp_path / file)
    assert set(removed) == expected
    assert not any(path.exists() for path in expected)
    assert (tmp_path / paths.checkpoint(unfinished.digest)).exists()
    assert (tmp_path / paths.checkpoint("0123456789abcdef")).exists(), "another study's"
