"""Planning removes what killed processes have left, and nothing that is needed."""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from helpers.disks import small_disk
from helpers.stored import finish
from rankwise.core import documents, paths, process_names, progress
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
        removed = tidy(plan, settle(plan))
        assert living.exists()
    expected = {part, store.parent}
    for file in (paths.checkpoint(finished.digest), paths.measured_start(finished.digest)):
        expected.add(tmp_path / file)
    assert set(removed) == expected
    assert not any(path.exists() for path in expected)
    assert (tmp_path / paths.checkpoint(unfinished.digest)).exists()
    assert (tmp_path / paths.checkpoint("0123456789abcdef")).exists(), "another study's"


def fail(job: jobs.PlannedJob) -> Path:
    """Let a job report, and then fail; the file that it leaves."""
    with contextlib.suppress(ValueError), progress.reported(job.request):
        raise ValueError("x")
    return progress.FOLDER / f"{job.digest}.json"


def test_records_of_jobs_go_once_their_output_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a job that failed or was killed stays as long as nothing else tells of it."""
    monkeypatch.chdir(tmp_path)
    plan = Plan(STUDY, tmp_path, "config/tidy.yaml")
    finished, unfinished = jobs.cell_jobs(plan, "train")
    finish(tmp_path, finished, status="ok")
    table = next(job for job in jobs.document_jobs(plan) if job.kind == "table")
    of_finished, of_unfinished, of_table = fail(finished), fail(unfinished), fail(table)
    killed = json.loads(of_finished.read_text())
    killed |= {"state": progress.RUNNING, "process": process_names.name(2**22 + 1)}
    of_finished.write_text(json.dumps(killed))
    assert tidy(plan, settle(plan)) == [tmp_path / of_finished]
    with progress.reported(finished.request):
        assert tidy(plan, settle(plan)) == []
        assert of_finished.exists(), "its job is at work"
    finish(tmp_path, unfinished, status="ok")
    settle(plan)  # plans the table
    for path in table.outputs:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    documents.note(table.request)
    assert set(tidy(plan, settle(plan))) == {tmp_path / of_unfinished, tmp_path / of_table}
    assert list(progress.FOLDER.iterdir()) == []


def test_a_read_only_folder_of_checkpoints_stops_no_planning(tmp_path: Path) -> None:
    """Removing a missing file is an error on a read-only disk; a checkpoint there stays."""
    plan = Plan(STUDY, tmp_path, "config/tidy.yaml")
    finished, _ = jobs.cell_jobs(plan, "train")
    finish(tmp_path, finished, status="ok")
    kept = tmp_path / paths.checkpoint(finished.digest)
    with small_disk(kept.parent):
        kept.touch()
        subprocess.run(["mount", "-o", "remount,ro", str(kept.parent)], check=True)
        assert tidy(plan, settle(plan)) == []
        subprocess.run(["mount", "-o", "remount,rw", str(kept.parent)], check=True)
        assert tidy(plan, settle(plan)) == [kept]
