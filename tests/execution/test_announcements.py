"""What the terminal says of a job: a line or two when it starts, one when it fails."""

import logging
from enum import Enum
from pathlib import Path

import pytest

from rankwise.execution.announcements import Brief, short_reason

RESULT = "results/sweep/runs/tiny/sst2/lora/r2/seed0/0123/train.json"
MANY = [f"results/sweep/runs/tiny/sst2/lora/r2/seed{seed}/0123/train.json" for seed in range(3000)]


class Event(Enum):
    """Snakemake's events, by the names that its logger plugins' interface documents."""

    JOB_INFO = 1
    JOB_ERROR = 2
    JOB_FINISHED = 3
    GROUP_ERROR = 4
    PROGRESS = 5


def record(event: Event | None, text: str = "as Snakemake says it", **values: object):
    made = logging.makeLogRecord({"msg": text, "event": event, **values})
    made.levelno = logging.INFO
    return made


def job(**changes: object) -> dict:
    facts = {
        "rule_name": "train",
        "input": MANY,
        "output": [RESULT],
        "log": ["logs/a.log"],
        "reason": f"Missing output files: {RESULT}",
        "wildcards": {"model": "tiny", "digest": "0123"},
    }
    return facts | changes


def brief(is_dry_run: bool = False) -> Brief:
    titles = {RESULT: "tiny/sst2, lora, rank 2, seed 0"}
    return Brief(logging.Formatter(), titles, lambda: is_dry_run)


def test_a_job_that_starts_has_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "[12:00:00]")
    assert brief().format(record(Event.JOB_INFO, **job())) == (
        "[12:00:00] rule train: tiny/sst2, lora, rank 2, seed 0\n    log: logs/a.log"
    )


def test_the_page_of_three_thousand_runs_is_announced_in_two_short_lines() -> None:
    page = job(
        rule_name="report",
        output=["results/sweep/report.html"],
        wildcards={},
        reason=f"Input files updated by another job: {', '.join(MANY)}",
    )
    for is_dry_run in (False, True):
        text = brief(is_dry_run).format(record(Event.JOB_INFO, **page))
        assert text.count("\n") == 1
        assert max(map(len, text.splitlines())) < 200
        assert "results/sweep/report.html" in text
    assert "and 2999 more" in text


def test_a_dry_run_says_which_jobs_and_why() -> None:
    assert brief(is_dry_run=True).format(record(Event.JOB_INFO, **job())) == (
        f"rule train: tiny/sst2, lora, rank 2, seed 0\n    Missing output files: {RESULT}"
    )


def test_a_job_that_fails_has_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "[12:00:00]")
    log = tmp_path / "a.log"
    log.write_text(
        "tiny/sst2, lora\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\nValueError: rank: got 0, allowed: 1\n'
    )
    text = brief().format(record(Event.JOB_ERROR, **job(log=[str(log)])))
    assert text == (
        "[12:00:00] failed: rule train: tiny/sst2, lora, rank 2, seed 0: "
        f"rank: got 0, allowed: 1 ({log})"
    )


def test_a_job_without_a_title_is_named_by_its_wildcards_or_its_file() -> None:
    other = job(output=["results/tables/runs.csv"], wildcards={"table": "runs"})
    assert "rule train: runs\n" in brief().format(record(Event.JOB_INFO, **other))
    other = job(output=["results/claims.csv"], wildcards={})
    assert "rule train: results/claims.csv\n" in brief().format(record(Event.JOB_INFO, **other))


def test_progress_is_a_line_and_the_rest_is_as_snakemake_says_it() -> None:
    assert brief().format(record(Event.PROGRESS, done=3, total=38)).endswith("3 of 38 steps done")
    assert brief().format(record(Event.JOB_FINISHED)) == ""
    assert brief().format(record(None)) == "as Snakemake says it"
    assert brief().format(record(None, "Select jobs to execute...")) == ""


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("Missing output files: b, a, c", "Missing output files: a and 2 more"),
        ("Missing output files: a; Forced execution", "Missing output files: a; Forced execution"),
        ("Forced execution", "Forced execution"),
    ],
)
def test_a_reason_names_one_file_of_each_list(reason: str, short: str) -> None:
    assert short_reason(reason) == short
