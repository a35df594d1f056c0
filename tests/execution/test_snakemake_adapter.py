"""Snakemake's internals: where they are touched, and which versions are refused."""

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.repository import ROOT, run_snakemake
from rankwise.execution.snakemake_adapter import UntestedSnakemake, check_version, on_error

INTERNALS = re.compile(
    r"_parsed_\w+|global_resources|parent_groupids|_write_record|sys\.argv|_onstart|"
    r"workflow\.dag\b|snakemake\.persistence|resource_settings\.(?!cores)"
)


@pytest.mark.parametrize("version", ["9.27.0", "9.27.1", "9.27.12"])
def test_the_tested_range_is_let_through(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["9.26.4", "9.28.0", "10.0.0", "8.30.0"])
def test_another_snakemake_is_refused_with_the_range(version: str) -> None:
    with pytest.raises(UntestedSnakemake) as refused:
        check_version(version)
    expected = f"snakemake: version: got {version}, allowed: 9.27 or newer and older than 9.28"
    assert str(refused.value).startswith(expected)


def test_no_rule_touches_an_internal() -> None:
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        assert not INTERNALS.findall(path.read_text()), path


def test_no_module_but_the_adapter_imports_snakemake() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "snakemake_adapter.py":
            found = re.findall(r"^\s*(?:from|import) snakemake\b.*", path.read_text(), re.MULTILINE)
            assert not found, path


@pytest.mark.parametrize(
    ("failed", "running", "stopped", "is_called"),
    [
        ({"a job"}, set(), None, True),
        (set(), set(), None, False),  # nothing failed: the user pressed Ctrl-C between two jobs
        ({"a job"}, {"another"}, None, False),  # Ctrl-C
        ({"a job"}, set(), "graceful", False),  # SIGTERM
    ],
)
def test_after_a_failure_something_is_done_unless_the_user_stopped_the_run(
    failed: set, running: set, stopped: str | None, is_called: bool
) -> None:
    called = []
    scheduler = SimpleNamespace(failed=failed, running=running, _user_kill=stopped)
    workflow = SimpleNamespace(scheduler=scheduler, _onerror=called.append)
    on_error(workflow, lambda: called.append("report"))
    workflow._onerror("the log")
    assert called == (["report", "the log"] if is_called else ["the log"])


# A workflow that gets SIGTERM while it selects its jobs.
STRUCK = """
import os, signal
from rankwise.execution import snakemake_adapter

def strike():
    select = workflow.scheduler._job_selector
    def selector(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return select(*arguments)
    workflow.scheduler._job_selector = selector

snakemake_adapter.on_start(workflow, strike)
snakemake_adapter.answer_signals(workflow)

rule all:
    output: "done"
    shell: "touch done"
"""


def test_a_signal_while_jobs_are_selected_ends_snakemake(tmp_path: Path) -> None:
    """It would wait for ever for a lock that it holds itself."""
    (tmp_path / "Snakefile").write_text(STRUCK)
    source = str(ROOT / "src")
    arguments = ("--cores", "1", "--scheduler", "ilp", "--workflow-profile", "none")
    with limit(120):
        done = run_snakemake(tmp_path, *arguments, PYTHONPATH=source)
    assert done.returncode == 1, done.stderr


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Fail, and do not wait for ever."""

    def expire(*_: object) -> None:
        pytest.fail(f"it did not end within {seconds} s")

    signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
