"""Signals at random moments, to every process of a running study: nothing is lost, and nothing false."""

import random
from collections import Counter

import pytest

from faults import clone, strikes
from faults.strikes import Report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """All strikes, on one clone."""
    root = clone.make_clone(tmp_path_factory.mktemp("struck") / "clone")
    generator = random.Random(strikes.SEED)
    drawn = strikes.planned(strikes.KILLS, strikes.STOPS, generator)
    return strikes.strike_all(root, strikes.run_undisturbed(root), drawn)


def test_every_kind_of_process_is_struck(report: Report) -> None:
    counts = Counter((one.kind, one.target) for one in report.strikes)
    assert counts == {
        ("SIGKILL", "trainer"): 10,
        ("SIGKILL", "caller"): 10,
        ("SIGKILL", "server"): 10,
        ("SIGKILL", "snakemake"): 10,
        ("SIGKILL", "all"): 10,
        ("SIGTERM", "snakemake"): 10,
        ("SIGINT", "snakemake"): 10,
    }
    assert sum(one.strikes for one in report.ended) == 70


def test_every_study_ends_with_the_undisturbed_files(report: Report) -> None:
    assert report.failures == []
    assert [one for one in report.ended if one.unequal] == []


def test_no_process_is_left(report: Report) -> None:
    assert [one for one in report.strikes if one.orphans] == []
    assert report.left == []


def test_no_finished_result_is_computed_again(report: Report) -> None:
    assert sum(one.finished for one in report.strikes) > 70, "strikes hit studies under way"
    assert [one for one in report.strikes if one.computed_again] == []


def test_no_part_is_left(report: Report) -> None:
    assert [one for one in report.ended if one.left] == []
