"""The tests that need a GPU, in this process; in a rehearsal those parts of them that need none."""

import os

import pytest

from benchmarks.gpu_check.cases import ROOT
from benchmarks.gpu_check.runner import Check

FOLDER = "tests/gpu"
SHOWN = 300  # characters of a failure


class Rows:
    """A pytest plugin that sends each test's outcome as a row."""

    def __init__(self, check: Check):
        self._check = check

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called with the setup, the call and the teardown of every test."""
        if report.when != "call" and report.passed:
            return
        row = {"test": report.nodeid.removeprefix(f"{FOLDER}/"), "outcome": report.outcome}
        if report.outcome == "skipped":
            row["why"] = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr)
            row["reason"] = " ".join(message.split())[:SHOWN]
        self._check.row(**row, took_s=round(report.duration, 2))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called when a file could not be imported, too."""
        if report.failed:
            reason = str(report.longrepr).strip().splitlines()[-1]
            self._check.row(test=report.nodeid, outcome="failed", reason=reason[:SHOWN])


def run(check: Check) -> None:
    """Send a row for each test.

    Raises:
        RuntimeError: pytest found no tests, or could not run.
    """
    os.environ["RANKWISE_REHEARSE_GPU"] = "1" if check.rehearse else ""
    arguments = ["-q", "-p", "no:cacheprovider", "--durations=0", "-m", "gpu", FOLDER]
    os.chdir(ROOT)
    status = pytest.main(arguments, plugins=[Rows(check)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {status!r}")
